"""Runs on a Ray cluster: submitted from a clone, run by DVC on the nodes, fetched by `dvc exp pull`."""
