"""The stage `activations`: `__main__` runs it; the part that needs Keras is in `frozen`."""
