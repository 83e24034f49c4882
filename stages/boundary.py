"""boundary: the settings of the fine-tune -> data/boundary.json, the few of them that stored activations depend on.

With `fine_tune.views`, the stage `activations` computes once what the frozen layers below `fine_tune.unfreeze_from`
output. This depends on only a few of the fine-tune's settings, but DVC tracks the key `fine_tune` as a whole. This
stage, which costs nothing, therefore runs after each edit of `fine_tune`; `activations` depends on its output, and runs
again only if that has changed.
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
    """The settings that the stored activations depend on; all others are left out."""
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
    print(f"activations to store: {stored}")


if __name__ == "__main__":
    running.run(main, Settings)
