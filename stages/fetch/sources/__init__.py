"""A module for each kind of source, under its name in params.yaml: its settings, and how it is opened."""
