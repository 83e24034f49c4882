"""Which part of a model is frozen, where it is cut, and what the frozen part gives."""
