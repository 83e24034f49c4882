"""Trackers: TensorBoard and MLflow follow experiments beside DVC, and change nothing that the stages write."""
