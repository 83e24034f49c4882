"""Runs experiments on a Ray cluster: submits them from a clone; DVC runs them on the nodes."""
