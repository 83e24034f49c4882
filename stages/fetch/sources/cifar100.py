"""`source: cifar100`: the official python archive of CIFAR-100 (Krizhevsky 2009), 32x32 pixels."""

import io
import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.fetch.reading.archives import list_contents
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.network.downloads import obtain
from temper.settings.base import Sha256, Text
from temper.settings.fetch import ArchiveSettings

_FOLDER = "cifar-100-python"


class Settings(ArchiveSettings):
    """`source: cifar100`: the official python archive, known by its checksum."""

    source: Literal["cifar100"]
    archive: Text = Field(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        description="where the archive is: an address, of the publisher or of a mirror, or a local path",
    )
    sha256: Sha256 = Field(
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba597a7",
        description="the expected SHA-256 checksum of the archive",
    )


class _Array:
    """Replaces a NumPy array while unpickling: it only keeps the array's bytes, and none of NumPy's code runs."""

    data = b""

    def __setstate__(self, state: Any) -> None:
        *_, self.data = state


class _Type:
    """Replaces the dtype of an array while unpickling."""

    def __setstate__(self, state: Any) -> None:
        pass


def _encode(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes in pickles of this old protocol as a call of `_codecs.encode`, which this replaces."""
    if encoding != "latin1":
        raise ValueError(f"text encoded as {encoding!r}")
    return text.encode(encoding)


class _CifarUnpickler(pickle.Unpickler):
    """Admits only the types that CIFAR's files need, because a right checksum is no reason to run an archive's code."""

    _ADMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): lambda *_: _Type(),
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ADMITTED:
            raise ValueError(f"{module}.{name} instead of arrays, lists and text")
        return self._ADMITTED[module, name]


def unpickle(data: bytes) -> dict[bytes, Any]:
    """The dictionary in one of the archive's files. Its texts are bytes, because Python 2 wrote it.

    Raises:
        ValueError: the data is not a pickle, or not one of a dictionary of arrays, lists and texts.
    """
    _refuse_endless_memo(data)
    try:
        content = _CifarUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a pickle is a program: it may end in any error
        raise ValueError(f"{type(error).__name__}: {str(error)[:300]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} instead of a mapping")
    return content


def _refuse_endless_memo(data: bytes) -> None:
    """Scans a pickle, without running it, for a memo that would exhaust the memory.

    Ten bytes of a pickle can request a memo of four billion entries. Real picklers number the entries consecutively, so
    no entry's number exceeds the count of operations before it.
    """
    for count, (code, argument, _) in enumerate(pickletools.genops(data)):  # raises ValueError where the data is none
        if "PUT" in code.name and int(argument or 0) > count:
            raise ValueError(f"place {argument} of its memo after {count} operations")


def names_of(meta: dict[bytes, Any], key: bytes) -> list[str]:
    names = meta.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise ValueError(f"{key.decode()} that is no list of names")
    return [name.decode() for name in names]


@dataclass(frozen=True)
class _Batch:
    """The validated contents of one of the two splits."""

    names: list[str]
    pixels: npt.NDArray[np.uint8]  # (photos, 3, 32, 32), RGB
    labels: list[str]
    coarse: list[str]


def batch_of(content: dict[bytes, Any], fine: list[str], coarse: list[str]) -> _Batch:
    """Validates the contents of a split's file and translates its labels to names.

    Args:
        content: the unpickled file.
        fine, coarse: the names of the fine and of the coarse labels.

    Raises:
        ValueError: a column is missing, columns differ in length, or a label has no name.
    """
    names, data = content.get(b"filenames"), content.get(b"data")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise ValueError("filenames that are no list of names")
    if not isinstance(data, _Array) or not isinstance(data.data, bytes) or len(data.data) != len(names) * 3072:
        raise ValueError(f"data that is no array of {len(names)} photos with 3072 bytes")
    pixels = np.frombuffer(data.data, np.uint8).reshape(-1, 3, 32, 32)
    columns = []
    for key, known in ((b"fine_labels", fine), (b"coarse_labels", coarse)):
        labels = content.get(key)
        if not isinstance(labels, list) or len(labels) != len(names):
            raise ValueError(f"{key.decode()} that is no list of {len(names)} numbers")
        for name, label in zip(names, labels, strict=True):
            if type(label) is not int or not 0 <= label < len(known):
                raise ValueError(f"{key.decode()} {str(label)[:30]} of {name!r} instead of 0 to {len(known) - 1}")
        columns.append([known[label] for label in labels])
    return _Batch([name.decode() for name in names], pixels, *columns)


def open_source(settings: Settings) -> Source:
    """CIFAR-100 as PNG files with its published train and test splits.

    The checksum is verified before anything in the archive is unpickled.

    Raises:
        TemperError: the archive is not the published one, or one of its files is missing or invalid.
    """
    path = obtain(settings.archive, settings.sha256, "archive")
    wanted = {f"{_FOLDER}/{name}" for name in ("meta", "train", "test")}
    files = dict(list_contents(path, settings.limits).read(wanted))
    if set(files) != wanted:
        raise TemperError(f"{settings.archive}: expected {', '.join(sorted(wanted))}, found {sorted(files)}")
    batches = {}
    for name in ("meta", "train", "test"):
        try:
            content = unpickle(files.pop(f"{_FOLDER}/{name}"))
            if name == "meta":
                fine, coarse = (names_of(content, key) for key in (b"fine_label_names", b"coarse_label_names"))
            else:
                batches[name] = batch_of(content, fine, coarse)
        except ValueError as error:
            raise TemperError(
                f"{settings.archive}: expected CIFAR-100's {_FOLDER}/{name}, received {error}; fetch it again"
            ) from None

    def photos() -> Iterator[Photo]:
        for split, batch in batches.items():
            rows = zip(batch.names, batch.pixels, batch.labels, batch.coarse, strict=True)
            for name, pixels, label, coarse_label in rows:
                _, png = cv2.imencode(".png", cv2.cvtColor(pixels.transpose(1, 2, 0), cv2.COLOR_RGB2BGR))
                yield Photo(f"{split}/{name}", label, split, png.tobytes(), coarse=coarse_label)

    facts = {
        "source": "cifar100",
        "from": "cifar-100-python.tar.gz",
        "sha256": settings.sha256,
        "origin": "Learning Multiple Layers of Features from Tiny Images, A. Krizhevsky, 2009",
        "licence": "none stated; cite the report",
    }
    sizes = (batch.pixels.nbytes for batch in batches.values())
    return Source(facts, sum(len(batch.names) for batch in batches.values()), photos(), sum(sizes))
