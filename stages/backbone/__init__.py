"""The stage `backbone`: `__main__` runs it; `architectures` has the models of Keras, `hub` published ones."""
