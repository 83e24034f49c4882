"""Models in files: equal weights give equal bytes (law 10)."""

import time
from pathlib import Path

import numpy as np
import pytest

from temper import keras_files
from temper.base.errors import TemperError
from tests.toys.classifier import CARD, PIXELS, classifier

ENTRY = CARD.as_entry()


@pytest.mark.parametrize("name", ["tiny", "MobileNet", pytest.param("ResNet50", marks=pytest.mark.slow)])
def test_equal_weights_give_equal_bytes(tmp_path: Path, name: str) -> None:
    """Law 10: however much later, and from other objects, compiled or not."""
    first = classifier(name)
    keras_files.save(first, tmp_path / "first.keras", ENTRY)
    time.sleep(2)  # zip entries have a resolution of 2 s
    second = keras_files.load(tmp_path / "first.keras")
    second.compile("adam", "mse")
    keras_files.save(second, tmp_path / "second.keras", ENTRY)
    keras_files.save(first, tmp_path / "again.keras", ENTRY)
    assert (tmp_path / "again.keras").read_bytes() == (tmp_path / "first.keras").read_bytes()
    third = keras_files.load(tmp_path / "first.keras")
    keras_files.save(third, tmp_path / "third.keras", ENTRY)
    assert (tmp_path / "second.keras").read_bytes() == (tmp_path / "third.keras").read_bytes()
    assert np.array_equal(first.predict(PIXELS, verbose=0), second.predict(PIXELS, verbose=0))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.keras").write_bytes(b"PK")
    for name in ("half.keras", "none.keras"):
        with pytest.raises(TemperError, match=f"{name}: expected a model written by Keras") as refused:
            keras_files.load(tmp_path / name)
        assert "\n" not in str(refused.value)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """A model is whole or absent: no half of one is ever under its name, nor beside it."""
    keras_files.save(classifier("tiny"), tmp_path / "model.keras", ENTRY)
    before = (tmp_path / "model.keras").read_bytes()
    with pytest.raises(AttributeError):
        keras_files.save(classifier("tiny"), tmp_path / "model.keras", {"card.json": None})  # type: ignore[dict-item]
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    assert (tmp_path / "model.keras").read_bytes() == before
