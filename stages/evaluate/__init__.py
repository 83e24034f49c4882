"""evaluate: how good both models are, and what they say of each image."""
