"""What two or more stages of the pipeline share: a module for each thing (params, tables, photos, packs, ...)."""
