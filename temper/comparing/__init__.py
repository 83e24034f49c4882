"""Compares two or more models on the same images, and reads models of other revisions."""
