"""A module for each kind of source, named as in params.yaml; it has the source's `Settings` and `open_source`."""
