"""What every stage needs and seldom changes: one folder, which dvc.yaml lists as one dep."""
