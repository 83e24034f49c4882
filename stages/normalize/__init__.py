"""The stage `normalize`: `__main__` runs it; splits and near-duplicates have modules of their own."""
