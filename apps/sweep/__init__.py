"""A search over params: `python -m apps.sweep SWEEP.yaml`."""
