"""The stage `cross_validate`: `__main__` runs it; `groups` finds repeated pictures, `label_errors` wrong labels."""
