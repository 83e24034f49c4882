"""Finished models in use: what a person names, photos found and prepared, models of several formats at work."""
