"""Which classes and images take part: rare classes left out, frequent ones cut to size."""

from collections import Counter
from collections.abc import Sequence

from stages.normalize.names import closest
from stages.normalize.splits import uniform
from temper.errors import TemperError


def left_out_classes(names: Sequence[str | None], wanted: list[str] | None, min_per_class: int) -> dict[str, str]:
    """The classes that do not take part, with the reason.

    Args:
        names: the class of each usable image.
        wanted: the only classes that do; None: all.

    Raises:
        TemperError: a wanted class is none.
    """
    counts = Counter(name for name in names if name is not None)
    for name in wanted or ():
        if name not in counts:
            close = closest(name, counts)
            hint = f"; did you mean {close!r}?" if close else ""
            raise TemperError(f"normalize.classes: expected classes of the source, received {name!r}{hint}")
    reasons = {}
    for name, count in counts.items():
        if wanted is not None and name not in wanted:
            reasons[name] = f"of the class {name}, which is not in normalize.classes"
        elif count < min_per_class:
            reasons[name] = f"of the class {name}, which has {count} images; normalize.min_per_class is {min_per_class}"
    return reasons


def beyond_the_cap(names: Sequence[str], sha256: Sequence[str], seed: int, most: int | None, balance: str) -> list[int]:
    """The positions of the training images beyond what each class may have.

    Those with the lowest hashes stay: a larger cap only adds images.

    Args:
        names: the class of each training image.
        most: images of a class; None: no limit.
        balance: "smallest": no more images than the rarest class has.
    """
    counts = Counter(names)
    if balance == "smallest" and counts:
        most = min(most or max(counts.values()), *counts.values())
    if most is None:
        return []
    crowded = {name for name, count in counts.items() if count > most}
    positions = [position for position, name in enumerate(names) if name in crowded]
    drawn = sorted(positions, key=lambda position: (uniform(f"cap:{seed}:{sha256[position]}"), position))
    taken: Counter[str] = Counter()
    beyond = []
    for position in drawn:
        taken[names[position]] += 1
        if taken[names[position]] > most:
            beyond.append(position)
    return sorted(beyond)
