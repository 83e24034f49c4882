"""data/boundary.json: the settings on which the stored activations of the backbone's frozen part depend.

The stage `boundary` copies them from the settings of the fine-tune into this file, and `activations` depends on the
file alone. So an edit of any other setting of the fine-tune does not compute the activations again. This module needs
neither Keras nor NumPy.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from temper.base.errors import TemperError
from temper.base.texts import write_json
from temper.settings.augmentation import Augmentation

PATH = Path("data/boundary.json")


class Drawn(BaseModel):
    """The settings by which augmented views are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    aug: float
    augmentation: Augmentation


class Boundary(BaseModel):
    """Which activations are stored.

    Attributes:
        views: the number of views of each training image, the plain one first; 0: nothing is stored.
        unfreeze_from: where the trainable part of the backbone begins; `None` if nothing is stored.
        drawn: how the views after the first are drawn; `None` if there are none.
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
    except (ValidationError, ValueError) as error:  # ValidationError is a ValueError; named here for the reader only
        problem = str(error).split("\n", 1)[0][:200]
        raise TemperError(f"{path}: expected what `boundary` writes, received {problem}; run dvc repro") from None
