"""New photos to a new model, which takes the place of the old one if it is shown to be good enough."""
