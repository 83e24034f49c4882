"""The stages of dvc.yaml, each run as `python -m stages.NAME` from the repository's root."""
