"""A module for each detector, under its name in params.yaml: its settings, and how it finds boxes."""
