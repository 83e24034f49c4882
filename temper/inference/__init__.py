"""Prediction with finished models: finds and prepares the photos that a user names, and runs models of all formats."""
