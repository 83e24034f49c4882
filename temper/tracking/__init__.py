"""Trackers: TensorBoard and MLflow, which follow experiments beside DVC and change nothing that the stages write."""
