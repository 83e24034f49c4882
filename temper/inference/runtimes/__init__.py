"""One signature for models in different formats: `opening` chooses the module by the ending of the file's name."""
