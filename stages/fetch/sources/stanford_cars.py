"""`source: stanford_cars`: 16,185 photos of 196 models of cars, with boxes.

The devkit's `cars_meta.mat` names the classes. Its `cars_train_annos.mat` and `cars_test_annos_withlabels.mat` (or
`cars_test_annos.mat`, without labels) annotate the photos in the folders `cars_train` and `cars_test`.
"""

import io
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from pydantic import Field
from scipy.io import loadmat

from stages.fetch.reading.bundles import Bundle, open_bundle
from stages.fetch.reading.kaggle_downloads import obtain_dataset
from stages.fetch.reading.notations import Slug
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.base.paths import existing
from temper.settings.fetch import ArchiveSettings


class Settings(ArchiveSettings):
    """`source: stanford_cars`: cars_train, cars_test and the devkit, from Kaggle or from `path`."""

    source: Literal["stanford_cars"]
    kaggle: Slug | None = Field(
        None, description="a copy on Kaggle to download, as owner/name; null: the files are at `path`"
    )


_MOST_MEMORY = 8 * 2**30  # bytes of address space; the devkit's files take some MB of it, the libraries one or two GB
_MOST_SECONDS = 600
_ANNOTATIONS = {
    "train": ("cars_train_annos.mat",),
    "test": ("cars_test_annos_withlabels.mat", "cars_test_annos.mat"),
}


@dataclass(frozen=True)
class Annotation:
    """The devkit's annotation of a photo. The label is None in the version of the test set without labels."""

    label: str | None
    box: tuple[float, float, float, float] | None


def open_source(settings: Settings) -> Source:
    """The photos of cars_train and cars_test with their published labels (`AM General Hummer SUV 2000`) and boxes.

    A photo without annotation is unlabelled. Annotations without a photo are counted in source.json.

    Raises:
        TemperError: there are no photos or no devkit, or the devkit's files are not the published ones.
    """
    downloaded = obtain_dataset(settings.kaggle, []) if settings.kaggle else None
    bundle = open_bundle(downloaded.folder if downloaded else existing(settings.path), settings.limits)
    where = settings.kaggle or settings.path
    annotations = read_annotations(bundle, where)
    splits = {name: split for name in bundle.images() if (split := _split_of(name))}
    if not splits:
        raise TemperError(f"{where}: expected photos in cars_train or cars_test, found {bundle.files[:3]}, ...")

    def photos() -> Iterator[Photo]:
        for name, data in bundle.read(set(splits)):
            said = annotations.get((splits[name], PurePosixPath(name).name), Annotation(None, None))
            yield Photo(name, said.label, splits[name], data, box=said.box)
        for name in sorted(set(splits) & set(bundle.unreadable)):
            said = annotations.get((splits[name], PurePosixPath(name).name), Annotation(None, None))
            yield Photo(name, said.label, splits[name], b"", box=said.box, problem=bundle.unreadable[name])

    found = {(split, PurePosixPath(name).name) for name, split in splits.items()}
    facts = {
        "source": "stanford_cars",
        **(downloaded.facts if downloaded else {"from": PurePosixPath(settings.path).name}),
        "origin": "3D Object Representations for Fine-Grained Categorization, J. Krause et al., 3dRR 2013",
        "licence": "non-commercial research",
        "annotated_but_not_there": len(set(annotations) - found),
    }
    return Source(facts, len(splits), photos(), bundle.bytes_of(set(splits)))


def _split_of(name: str) -> str | None:
    """The split of a photo by the folder it is in, at any depth: copies on Kaggle have cars_train/cars_train."""
    folders = PurePosixPath(name).parts[:-1]
    return next((split for split in ("train", "test") if f"cars_{split}" in folders), None)


def read_annotations(bundle: Bundle, where: str) -> dict[tuple[str, str], Annotation]:
    """The annotation of each (split, file name)."""
    meta = bundle.find("cars_meta.mat")
    if meta is None:
        raise TemperError(f"{where}: expected the devkit's cars_meta.mat, found {', '.join(bundle.files[:3])}, ...")
    names = [str(name) for name in _load(bundle, meta, "class_names").ravel()]
    annotations: dict[tuple[str, str], Annotation] = {}
    for split, candidates in _ANNOTATIONS.items():
        path = next(filter(None, map(bundle.find, candidates)), None)
        try:
            for row in _load(bundle, path, "annotations").ravel() if path else ():
                number = int(row["class"]) if "class" in row.dtype.names else None
                annotations[split, str(row["fname"])] = Annotation(_label(number, names), _box(row))
        except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            raise TemperError(f"{path}: expected fname, bbox_x1, ... and class in each row: {error}") from None
    return annotations


def _label(number: int | None, names: list[str]) -> str | None:
    """The name of the class with this number, counted from 1; None for no number.

    Raises:
        IndexError: there is no such class.
    """
    if number is None:
        return None
    if not 1 <= number <= len(names):
        raise IndexError(f"expected classes from 1 to {len(names)}, received {number}")
    return names[number - 1]


def _load(bundle: Bundle, name: str, key: str) -> Any:
    """A variable of a .mat file, an array of any shape.

    A child process with limited memory reads it: SciPy crashes on some damaged files, and allocates whatever size a
    file claims.
    """
    data = bundle.only(name)
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return pool.submit(_read_mat, data, key).result(_MOST_SECONDS)
    except BrokenProcessPool:
        raise TemperError(f"{name}: expected one of the devkit's .mat files, received a damaged one") from None
    except Exception as error:  # SciPy has no error of its own for most damage
        raise TemperError(
            f"{name}: expected one of the devkit's .mat files with {key} in it, received another: "
            f"{type(error).__name__}: {str(error)[:300]}"
        ) from None


def _read_mat(data: bytes, key: str) -> Any:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    return np.asarray(loadmat(io.BytesIO(data), squeeze_me=True)[key])


def _box(row: Any) -> tuple[float, float, float, float]:
    """The box of an annotation as x1, y1, x2, y2, counted from 0 with the end excluded.

    The devkit counts pixels from 1 and includes the last one.
    """
    return (
        float(row["bbox_x1"]) - 1,
        float(row["bbox_y1"]) - 1,
        float(row["bbox_x2"]),
        float(row["bbox_y2"]),
    )
