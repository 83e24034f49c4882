"""boundary: the settings of the fine-tune -> data/boundary.json, those of them that the frozen part depends on.

With `fine_tune.views` the activations at `fine_tune.unfreeze_from` are computed once, by the stage `activations`. They
depend on a few settings of many. DVC tracks `fine_tune` as a whole, so this stage, which costs nothing, runs after
each edit of it; where what it writes stays the same, nothing that is stored is computed again.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

from temper.base import running
from temper.base.atomic import atomic_file
from temper.freezing import boundary
from temper.freezing.boundary import Boundary, Drawn
from temper.settings.augmentation import Augmentation
from temper.settings.boundary import Settings


def boundary_of(settings: Settings) -> Boundary:
    """What the settings say of the frozen part; nothing that makes no difference to it."""
    chosen = settings.fine_tune
    if not chosen.views:
        return Boundary(views=0)
    augmentation = Augmentation(**dict(chosen.augmentation))
    drawn = Drawn(seed=settings.seed, aug=settings.aug, augmentation=augmentation)
    return Boundary(views=chosen.views, unfreeze_from=chosen.unfreeze_from, drawn=drawn if chosen.views > 1 else None)


def main(settings: Settings) -> None:
    found = boundary_of(settings)
    with atomic_file(boundary.PATH) as path:
        boundary.write(found, path)
    stored = f"{found.views} view(s) of each training image, up to {found.unfreeze_from}" if found.views else "nothing"
    print(f"to be stored of the frozen part: {stored}")


if __name__ == "__main__":
    running.run(main, Settings)
