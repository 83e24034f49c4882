"""Code that every stage needs and that seldom changes. dvc.yaml lists the folder as a single dep."""
