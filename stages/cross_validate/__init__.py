"""The stage `cross_validate`: `__main__` runs it; what belongs together and which labels are wrong are modules."""
