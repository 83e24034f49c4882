"""Wraps text into lines of a limited width, so that no name has to be cut off."""

from collections.abc import Callable, Iterator

WidthOf = Callable[[str], float]  # of one line of text, in any unit


def wrap(text: str, limit: float, width_of: WidthOf) -> list[str]:
    """The lines of `text`, none wider than `limit`: broken between words, and within a word that is too wide by itself.

    A single character wider than `limit` still gets a line of its own.
    """
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if width_of(longer) <= limit:
            lines[-1] = longer
            continue
        pieces = list(_pieces(word, limit, width_of))
        lines.extend(pieces if lines[-1] else [])
        if not lines[0]:
            lines = pieces
    return lines


def _pieces(word: str, limit: float, width_of: WidthOf) -> Iterator[str]:
    """A word in pieces no wider than `limit`."""
    piece = ""
    for character in word:
        if piece and width_of(piece + character) > limit:
            yield piece
            piece = ""
        piece += character
    yield piece
