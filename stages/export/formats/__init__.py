"""A module for each family of formats, each with the functions `write...(request, path)` and `open_artefact(path)`."""
