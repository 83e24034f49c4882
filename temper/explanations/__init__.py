"""Explanations of a model: where it looks in an image, and what its layers look for."""
