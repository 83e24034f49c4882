"""Images that are changed at random, each from the seed, the epoch and the image alone."""
