"""What every detector that looks at photos is."""

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
        key: hex digits of everything besides the photo that its boxes depend on: weights, settings, versions, code.
    """

    key: str

    def detect(self, photos: Iterator[Photo]) -> Iterator[tuple[str, Boxes]]:
        """The image_id and the boxes of each photo, in any order, read as a stream."""

    def close(self) -> None:
        """Lets go of what it holds, another process for one."""


def decode(photo: Photo) -> photos.Pixels:
    """The upright pixels of a photo.

    Raises:
        TemperError: it does not decode, although it did when it was fetched, or there is too little memory.
    """
    try:
        return photos.decode(photo.data)
    except photos.BadPhoto as reason:
        raise undecodable(photo, str(reason)) from None
    except MemoryError as error:
        raise TemperError(f"detect: {photo.path} (image {photo.image_id}): {error}") from None


def undecodable(photo: Photo, reason: str) -> TemperError:
    """What to say of a photo that decoded when it was fetched and no longer does."""
    return TemperError(
        f"detect: {photo.path} (image {photo.image_id}): expected the photo that decoded when it was fetched, "
        f"received {reason}; run dvc repro --force fetch. What was detected before it is kept."
    )


def code_that_computes(text: str) -> str:
    """Python code without what changes no box: comments, layout, docstrings, and the class `Settings`.

    For a detector's key. The values of the settings are in the key by themselves; a better description of one must
    not detect every photo again.
    """
    return ast.unparse(_WithoutWords().visit(ast.parse(text)))


class _WithoutWords(ast.NodeTransformer):
    """Takes texts that stand alone, such as docstrings, and the class `Settings` out of code."""

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        return ast.Pass() if isinstance(node.value, ast.Constant) else node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return ast.Pass() if node.name == "Settings" else self.generic_visit(node)
