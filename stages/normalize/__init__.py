"""The stage `normalize`: `__main__` runs it; each question (names, splits, near-duplicates, ...) has its own module."""
