"""The stage `evaluate`: `__main__` runs it. It measures both phases' models and writes their predictions."""
