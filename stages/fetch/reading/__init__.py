"""Reads published files: archives, folders and their layouts, Kaggle downloads, tables of URLs."""
