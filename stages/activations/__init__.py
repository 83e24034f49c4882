"""The stage `activations`: `__main__` runs it; what needs Keras is in `frozen`."""
