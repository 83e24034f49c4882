"""The stage `detect`: `__main__` runs it; a module for each detector comes beside it, `detector` is what they share."""
