"""The interface of all detectors that process photos, and what they share."""

import ast
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from temper import photos
from temper.base.errors import TemperError
from temper.detections import Boxes


class Photo(NamedTuple):
    """An encoded photo."""

    image_id: str
    path: str  # as published, for messages
    data: bytes


class Detector(Protocol):
    """Finds objects in photos.

    Attributes:
        key: hex digits that identify everything besides the photo that its boxes depend on: weights, settings,
            versions of libraries, code.
    """

    key: str

    def detect(self, photos: Iterator[Photo]) -> Iterator[tuple[str, Boxes]]:
        """Yields the image_id and the boxes of each photo, in any order. It reads the photos one after the other."""

    def close(self) -> None:
        """Releases resources, such as a worker process."""


def decode(photo: Photo) -> photos.Pixels:
    """The upright pixels of a photo.

    Raises:
        TemperError: it cannot be decoded, although it could when it was fetched, or there is too little memory.
    """
    try:
        return photos.decode(photo.data)
    except photos.BadPhoto as reason:
        raise undecodable(photo, str(reason)) from None
    except MemoryError as error:
        raise TemperError(f"detect: {photo.path} (image {photo.image_id}): {error}") from None


def undecodable(photo: Photo, reason: str) -> TemperError:
    """The error for a photo that could be decoded when it was fetched and no longer can."""
    return TemperError(
        f"detect: {photo.path} (image {photo.image_id}): expected a photo that can be decoded, as when it was fetched, "
        f"received {reason}; run dvc repro --force fetch. What was detected before it is kept."
    )


def code_that_computes(text: str) -> str:
    """Python code without the parts that cannot change a box: comments, formatting, docstrings, the class `Settings`.

    It is used for a detector's key. The key has the values of the settings separately; rewording the description of a
    setting must not make every photo be detected again.
    """
    return ast.unparse(_WithoutWords().visit(ast.parse(text)))


class _WithoutWords(ast.NodeTransformer):
    """Removes constant expressions, such as docstrings, and the class `Settings` from code."""

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return ast.Pass() if node.name == "Settings" else self.generic_visit(node)
