"""Compares shares between two separate groups of photos, and finds classes whose share differs in the new photos."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from temper.measures.intervals import Interval, Z

SHIFT = 0.05  # the probability that any class is named although the groups do not differ


def difference(first: int, of_first: int, second: int, of_second: int, z: float = Z) -> tuple[float, Interval]:
    """The second share minus the first, and its interval (Newcombe 1998, method 10, from Wilson's intervals).

    Args:
        first: how many photos of the first group have the property.
        of_first: how many photos the first group has, at least 1.
        second, of_second: the same for the second group.
        z: the half width of the intervals in standard deviations; the default is that of a 95 % interval.
    """
    (p, low, high), (q, below, above) = _wilson(first, of_first, z), _wilson(second, of_second, z)
    value = q - p
    return value, (value - math.hypot(q - below, high - p), value + math.hypot(above - q, p - low))


def _wilson(count: int, images: int, z: float) -> tuple[float, float, float]:
    """A share and the lower and upper bound of its Wilson interval."""
    share = count / images
    middle, half = share + z**2 / (2 * images), z * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    low, high = ((middle + sign * half) / (1 + z**2 / images) for sign in (-1, 1))
    return share, min(max(low, 0.0), share), max(min(high, 1.0), share)


@dataclass(frozen=True)
class Shift:
    """A class whose share of the photos differs by more than chance.

    Attributes:
        old, new: its share of the old and of the new photos, 0 to 1.
        interval: the interval of new minus old.
    """

    class_name: str
    old: float
    new: float
    interval: Interval


def shifts(old: Mapping[str, int], new: Mapping[str, int]) -> list[Shift]:
    """The classes whose share differs between old and new photos by more than chance, the largest difference first.

    The intervals are wide enough for all of them together to hold with 95 % probability (Bonferroni).

    Args:
        old, new: how many old and how many new photos each class has. Classes without old photos are left out, because
            they are new and have not shifted.
    """
    of_old, of_new = sum(old.values()), sum(new.get(name, 0) for name in old)
    if not of_old or not of_new:
        return []
    z = NormalDist().inv_cdf(1 - SHIFT / 2 / max(len(old), 1))
    found = []
    for name, count in old.items():
        value, interval = difference(count, of_old, new.get(name, 0), of_new, z)
        if count and not interval[0] <= 0 <= interval[1]:
            found.append(Shift(name, count / of_old, count / of_old + value, interval))
    return sorted(found, key=lambda one: (-abs(one.new - one.old), one.class_name))
