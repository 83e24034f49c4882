"""The stage `detect`: `__main__` runs it; `detectors` holds a module for each detector."""
