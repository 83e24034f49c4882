"""The stage `fine_tune`: `__main__` runs the second phase, which unfreezes the backbone and trains it with the head."""
