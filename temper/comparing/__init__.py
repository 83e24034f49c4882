"""Two models or more on the same images, and where they come from."""
