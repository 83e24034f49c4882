"""Random augmentation of images. Each result follows from the seed, the epoch and the image alone."""
