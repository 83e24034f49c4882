"""The stage `warm_up`: `__main__` runs it; heads and the two solvers have a module each."""
