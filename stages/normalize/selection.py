"""Which classes and images take part: rare classes are left out, frequent ones are limited."""

from collections import Counter
from collections.abc import Collection, Sequence

from stages.normalize.names import closest
from stages.normalize.splits import uniform
from temper.base.errors import TemperError


def check_classes(wanted: list[str] | None, known: Collection[str]) -> None:
    """Raises a TemperError for a wanted class that the source does not have."""
    for name in wanted or ():
        if name not in known:
            close = closest(name, known)
            hint = f"; did you mean {close!r}?" if close else ""
            raise TemperError(f"normalize.classes: expected classes of the source, received {name!r}{hint}")


def rare_classes(names: Sequence[str], every: Collection[str], least: int) -> dict[str, str]:
    """The classes that do not take part because too few of their images can be used, with the reason.

    Args:
        names: the class of each usable image of the source itself.
        every: all classes; those without any image among `names` are rare whatever is the least.
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
    """The positions of the training images beyond what each class may have.

    Images of sources that only train (`extra`) are dropped first, so they never replace others. Among equals, those
    with the lowest hashes stay, so a larger cap only adds images.

    Args:
        names: the class of each training image.
        most: images of a class; None: no limit.
        balance: "smallest": no more images than the source itself has of its rarest class.
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
