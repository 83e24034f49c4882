"""Hyperparameter search over params.yaml: `python -m apps.sweep SWEEP.yaml`."""
