"""What may stand in params.yaml: a module for each stage, with the keys, ranges, defaults and meanings of its settings."""
