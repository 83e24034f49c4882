"""What may stand in params.yaml: for each stage a module with its keys, their ranges, defaults and meanings."""
