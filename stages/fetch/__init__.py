"""The stage `fetch`: `__main__` runs it for one named source; `sources` holds a module for each kind of source."""
