"""`source: cifar100`: the official python archive of CIFAR-100 (Krizhevsky 2009), 32x32 pixels."""

import io
import pickle
from collections.abc import Iterator
from typing import Any, Literal

import cv2
from pydantic import Field

from stages.fetch.reading.archives import read_files
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.downloads import obtain
from temper.settings.base import Sha256, Text
from temper.settings.fetch import SourceSettings

_FOLDER = "cifar-100-python"


class Settings(SourceSettings):
    """`source: cifar100`: the official python archive, known by its checksum."""

    source: Literal["cifar100"]
    archive: Text = Field(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", description="a URL, a mirror's, or a local path"
    )
    sha256: Sha256 = Field(
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba597a7", description="of the archive"
    )


class _CifarUnpickler(pickle.Unpickler):
    """Admits only what CIFAR's files are made of: an archive with the right checksum is trusted no further."""

    _ADMITTED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ADMITTED:
            raise TemperError(f"expected arrays, lists and text in CIFAR-100's pickles, received {module}.{name}")
        return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


def unpickle(data: bytes) -> dict[bytes, Any]:
    """The mapping in one of the archive's files, with bytes for text as Python 2 wrote it."""
    return _CifarUnpickler(io.BytesIO(data), encoding="bytes").load()  # type: ignore[no-any-return]


def open_source(settings: Settings) -> Source:
    """CIFAR-100 as PNG files with its published train and test splits.

    The checksum is verified before anything in the archive is unpickled.
    """
    path = obtain(settings.archive, settings.sha256, "archive")
    wanted = {f"{_FOLDER}/{name}" for name in ("meta", "train", "test")}
    files = dict(read_files(path, wanted))
    if set(files) != wanted:
        raise TemperError(f"{settings.archive}: expected {', '.join(sorted(wanted))}, found {sorted(files)}")
    meta = unpickle(files[f"{_FOLDER}/meta"])
    fine_names, coarse_names = (
        [n.decode() for n in meta[f"{kind}_label_names".encode()]] for kind in ("fine", "coarse")
    )
    splits = {split: unpickle(files[f"{_FOLDER}/{split}"]) for split in ("train", "test")}

    def photos() -> Iterator[Photo]:
        for split, content in splits.items():
            columns = (content[key] for key in (b"filenames", b"data", b"fine_labels", b"coarse_labels"))
            for name, row, fine, coarse in zip(*columns, strict=True):
                pixels = row.reshape(3, 32, 32).transpose(1, 2, 0)  # (32, 32, 3), RGB
                _, png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
                path = f"{split}/{name.decode()}"
                yield Photo(path, fine_names[fine], split, png.tobytes(), coarse=coarse_names[coarse])

    facts = {
        "source": "cifar100",
        "from": "cifar-100-python.tar.gz",
        "sha256": settings.sha256,
        "origin": "Learning Multiple Layers of Features from Tiny Images, A. Krizhevsky, 2009",
        "licence": "none stated; cite the report",
    }
    return Source(facts, sum(len(content[b"data"]) for content in splits.values()), photos())
