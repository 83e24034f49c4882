"""fine_tune: the second phase, in which the backbone is opened."""
