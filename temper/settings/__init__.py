"""The settings in params.yaml: a module for each stage with its keys and their ranges, defaults and meanings."""
