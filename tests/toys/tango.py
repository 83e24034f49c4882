"""A second implementation of the lower bound of Tango's interval, directly from its equation."""

import math


def lower_bound(gained: int, lost: int, images: int, z: float = 1.959964) -> float:
    """The difference -d of two paired shares, at most the observed one, that is `z` standard errors below it.

    At -d the variance is n (2 q - d (d + 1)), where q, the share of images that only the old model is right on, solves
    2 n q^2 + B q + C = 0 (Tango 1998).
    """
    low, high = (lost - gained) / images, 1.0
    for _ in range(100):
        d = (low + high) / 2
        b = -gained - lost - (2 * images - gained + lost) * d
        c = lost * d * (1 + d)
        q = (math.sqrt(b * b - 8 * images * c) - b) / (4 * images)
        variance = images * (2 * q - d * (1 + d))
        near = gained - lost + images * d < z * math.sqrt(max(variance, 1e-12))
        low, high = (d, high) if near else (low, d)
    return -low
