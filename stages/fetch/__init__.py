"""The stage `fetch`: `__main__` runs it; a module for each kind of source, under the source's name."""
