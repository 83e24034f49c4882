"""A module for each family of formats: `write...(request, path)` and `open_artefact(path)`, each with one signature."""
