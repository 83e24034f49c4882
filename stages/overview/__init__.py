"""The stage `overview`: `__main__` runs it. It draws the page of results from what the other stages measured."""
