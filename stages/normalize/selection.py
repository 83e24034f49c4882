"""Selects classes and images: rare classes are left out, and the training images of frequent classes are limited."""

from collections import Counter
from collections.abc import Collection, Sequence

from stages.normalize.names import closest
from stages.normalize.splits import uniform
from temper.base.errors import TemperError


def check_classes(wanted: list[str] | None, known: Collection[str]) -> None:
    """Raises a TemperError if `normalize.classes` (`wanted`) contains a class that no main source has."""
    for name in wanted or ():
        if name not in known:
            close = closest(name, known)
            hint = f"; did you mean {close!r}?" if close else ""
            raise TemperError(f"normalize.classes: expected classes that a source has, received {name!r}{hint}")


def rare_classes(names: Sequence[str], every: Collection[str], least: int) -> dict[str, str]:
    """The classes that are left out because they have too few usable images, with the reason.

    Args:
        names: the class of each usable image of the main sources (all but those of `normalize.only_train`).
        every: all classes. One without any usable image is left out whatever `least` is.
        least: how many usable images a class needs (`normalize.min_per_class`).
    """
    counts = Counter(names)
    return {
        name: f"of the class {name}, which has {counts[name]} usable images; normalize.min_per_class is {least}"
        for name in every
        if counts[name] < max(1, least)
    }


def beyond_the_cap(
    names: Sequence[str], sha256: Sequence[str], extra: Sequence[bool], seed: int, most: int | None, balance: str
) -> list[int]:
    """The positions of the training images that exceed the limit for their class.

    Images of sources that only train (`extra`) are dropped first, so they never displace images of main sources. Among
    the rest, images with the lowest hashes are kept, so a higher limit only adds images.

    Args:
        names: the class of each training image.
        sha256: the checksum of each training image.
        extra: whether each training image belongs to a source that only trains.
        most: the limit for each class; None: no limit.
        balance: "smallest" limits each class to the number of training images from the main sources that the rarest
            class has.
    """
    counts = Counter(names)
    own = Counter(name for name, is_extra in zip(names, extra, strict=True) if not is_extra)
    if balance == "smallest" and own:
        most = min(most or max(own.values()), *own.values())
    if most is None:
        return []
    crowded = {name for name, count in counts.items() if count > most}
    positions = [position for position, name in enumerate(names) if name in crowded]

    def rank(position: int) -> tuple[bool, float, int]:
        return extra[position], uniform(f"cap:{seed}:{sha256[position]}"), position

    taken: Counter[str] = Counter()
    beyond = []
    for position in sorted(positions, key=rank):
        taken[names[position]] += 1
        if taken[names[position]] > most:
            beyond.append(position)
    return sorted(beyond)
