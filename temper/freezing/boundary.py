"""The boundary between the frozen part of the backbone and what trains: all that the activations there depend on.

`boundary` takes it out of the settings of the fine-tune and writes it into a file of its own, so that an edit of any
other setting leaves the stored activations as they are. It needs neither Keras nor NumPy.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.settings.augmentation import Augmentation

PATH = Path("data/boundary.json")


class Drawn(BaseModel):
    """How the augmented views are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    aug: float
    augmentation: Augmentation


class Boundary(BaseModel):
    """What is stored of the frozen part of the backbone.

    Attributes:
        views: of each training image, the plain one first; 0: nothing is stored.
        unfreeze_from: where the open part begins; `None` where nothing is stored.
        drawn: how the further views are drawn; `None` where there are none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    views: int
    unfreeze_from: str | float | None = None
    drawn: Drawn | None = None


def write(boundary: Boundary, path: Path) -> None:
    """Writes a boundary; equal ones give equal bytes."""
    write_json(path, boundary.model_dump(mode="json", exclude_none=True))


def read(path: Path = PATH) -> Boundary:
    """Reads what `write` wrote.

    Raises:
        TemperError: the file is missing or holds something else.
    """
    try:
        return Boundary.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; run dvc repro, or dvc pull") from None
    except (ValidationError, ValueError) as error:  # ValidationError is a ValueError; named for who reads this
        problem = str(error).split("\n", 1)[0][:200]
        raise TemperError(f"{path}: expected what `boundary` writes, received {problem}; run dvc repro") from None
