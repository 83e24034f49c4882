"""Which layers of a model are frozen, where the model is cut in two, and the stored outputs of the frozen part."""
