"""The stage `backbone`: `__main__` runs it; the known architectures have a module of their own."""
