"""The app `retrain`: trains a new model on new photos, and promotes it if it is shown to be good enough."""
