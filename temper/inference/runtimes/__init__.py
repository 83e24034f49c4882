"""Runtimes for models in different formats, all with the same interface; `opening` chooses one by the file's ending."""
