"""The stage `export`: `__main__` runs it. It writes the classifier for other runtimes and compares the answers."""
