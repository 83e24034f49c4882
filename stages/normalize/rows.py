"""The rows of the raw tables, and what `normalize` has decided about each of them so far."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


class Rows:
    """The rows of the raw tables with their classes, splits and reasons for rejection, filled in step by step.

    Attributes:
        raw: the raw tables' metadata.
        sha256: the checksum of each row's bytes.
        published: the split of each row as published; after `read_splits`: train, validation, test or None.
        extra: whether each row belongs to a source of `normalize.only_train`.
        names: the class of each row; None: unlabelled, or rejected before a class was found.
        splits: the split of each labelled row; None for rows without a label, or rejected before the draw.
        reasons: why a row was rejected, by row.
        kinds: the kind of reason in one word, by row, for the counts in the metrics.
        notes: further lines for the console.
    """

    def __init__(self, raw: pa.Table, only_train: Sequence[str] = ()) -> None:
        self.raw = raw
        self.sha256: list[str] = raw["sha256"].to_pylist()
        self.published: list[str | None] = raw["split"].to_pylist()
        self.extra = pc.is_in(raw["source"], pa.array(only_train, pa.string())).to_numpy()
        self.names: list[str | None] = [None] * len(raw)
        self.splits: list[str | None] = [None] * len(raw)
        self.reasons: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.notes: list[str] = []

    def reject(self, row: int, kind: str, reason: str) -> None:
        """Marks a row as unusable for this reason; a row that is already rejected keeps its first reason."""
        if row not in self.reasons:
            self.reasons[row], self.kinds[row] = reason, kind

    def labelled(self) -> list[int]:
        """The rows that have a class and are not rejected."""
        return [row for row, name in enumerate(self.names) if name is not None and row not in self.reasons]

    def path(self, row: int) -> str:
        """The published path of a row."""
        return str(self.raw["path"][row])
