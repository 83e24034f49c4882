"""overview: what every stage measured, drawn for people."""
