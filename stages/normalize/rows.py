"""The rows of the raw tables, as `normalize` decides on them one question after the other."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


class Rows:
    """The rows of the raw tables, their class names, and what became of them.

    Attributes:
        extra: whether each row is of a source that only trains.
        names: the class of each row; None: unlabelled, or rejected before a class was found.
        splits: of each row that has one; rows without a label keep None.
        reasons: of each row that may not be used.
        kinds: of each such row, the reason in one word, to count by.
        notes: what a person should know of the whole.
    """

    def __init__(self, raw: pa.Table, only_train: Sequence[str] = ()) -> None:
        self.raw = raw
        self.sha256: list[str] = raw["sha256"].to_pylist()
        self.published: list[str | None] = raw["split"].to_pylist()  # as published; `read_splits` says what they mean
        self.extra = pc.is_in(raw["source"], pa.array(only_train, pa.string())).to_numpy()
        self.names: list[str | None] = [None] * len(raw)
        self.splits: list[str | None] = [None] * len(raw)
        self.reasons: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.notes: list[str] = []

    def reject(self, row: int, kind: str, reason: str) -> None:
        """Notes why a row may not be used; the first reason counts."""
        if row not in self.reasons:
            self.reasons[row], self.kinds[row] = reason, kind

    def labelled(self) -> list[int]:
        """The rows with a class that were not rejected."""
        return [row for row, name in enumerate(self.names) if name is not None and row not in self.reasons]

    def path(self, row: int) -> str:
        """The published path of a row."""
        return str(self.raw["path"][row])
