"""What differs between two revisions besides predictions: the params, and the stages that ran again."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from temper import predictions
from temper.base import loading
from temper.base.errors import TemperError
from temper.comparing.revisions import Absent, Revision
from temper.tracking.finished import flattened, without_trackers

LOCK, PIPELINE = "dvc.lock", "dvc.yaml"
CODE = ("stages/", "temper/", "apps/")

Edit = tuple[str, str | None, str | None]  # key, old value, new value; `None`: the key is absent


@dataclass(frozen=True)
class StageEdit:
    """A stage whose inputs or outputs differ between the revisions.

    Attributes:
        reasons: the inputs that differ (params, code, files), or "new" or "gone".
        outputs: how many outputs it has at the new revision.
        changed: how many of these outputs differ.
    """

    name: str
    reasons: Sequence[str]
    outputs: int
    changed: int


def read_params(revision: Revision) -> dict[str, Any]:
    """params.yaml without `trackers`, which do not affect the experiment; empty if the file does not exist."""
    try:
        content = revision.read(loading.PARAMS)
    except Absent:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / loading.PARAMS
        copy.write_bytes(content)
        try:
            return without_trackers(loading.read(copy))
        except TemperError as error:
            raise TemperError(str(error).replace(str(copy), f"{revision.name}: {loading.PARAMS}")) from None


def params(old: Revision, new: Revision) -> list[Edit]:
    """The params that differ, by dotted key: in the order of the new file, then those that are gone."""
    before, after = (dict(flattened(read_params(one))) for one in (old, new))
    keys = dict.fromkeys([*after, *before])
    pairs = [(key, before.get(key), after.get(key)) for key in keys]
    return [(key, _shown(one), _shown(other)) for key, one, other in pairs if not _equal(one, other)]


def stages(old: Revision, new: Revision) -> list[StageEdit]:
    """The stages whose inputs or outputs differ, in the order of dvc.yaml."""
    before, after = read_lock(old), read_lock(new)
    order = {name: place for place, name in enumerate(_yaml(new, PIPELINE).get("stages") or {})}
    names = sorted(before.keys() | after.keys(), key=lambda name: (order.get(name.split("@")[0], len(order)), name))
    found = []
    for name in names:
        one, other = before.get(name), after.get(name)
        outs, were = _checksums(other, "outs"), _checksums(one, "outs")
        changed = sum(were.get(path) != checksum for path, checksum in outs.items())
        reasons = list(_reasons(one, other)) if one and other else ["new" if other else "gone"]
        if changed and not reasons:
            reasons = ["nothing that it reads: it ran again"]
        if reasons:
            found.append(StageEdit(name, reasons, len(outs), changed))
    return found


def read_lock(revision: Revision) -> dict[str, Any]:
    """The stages of dvc.lock."""
    return {name: one for name, one in (_yaml(revision, LOCK).get("stages") or {}).items() if isinstance(one, dict)}


def out_of_step(revision: Revision) -> list[str]:
    """The params and the predictions in the working folder that have changed since `dvc repro`.

    Empty for a commit, for which this cannot be checked.
    """
    if revision.commit is not None:
        return []
    lock, today = read_lock(revision), read_params(revision)
    edited = []
    for stage in lock.values():
        for key, value in ((stage.get("params") or {}).get(loading.PARAMS) or {}).items():
            was, now = dict(flattened(value, key)), dict(flattened(_looked_up(today, key), key))
            edited += [one for one in dict.fromkeys([*was, *now]) if not _equal(was.get(one), now.get(one))]
    found = list(dict.fromkeys(edited))
    written = _checksums(lock.get("evaluate"), "outs").get(predictions.PATH)
    place = Path(predictions.PATH)
    if written and place.exists() and hashlib.md5(place.read_bytes(), usedforsecurity=False).hexdigest() != written:
        found.append(predictions.PATH)
    return found


def _reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """The inputs of a stage that differ: its command, params, code, then other files."""
    if before.get("cmd") != after.get("cmd"):
        yield "its command"
    was, now = ({key: value for of in (one.get("params") or {}).values() for key, value in flattened(of)}
                for one in (before, after))  # fmt: skip
    yield from (key for key in dict.fromkeys([*now, *was]) if not _equal(was.get(key), now.get(key)))
    read, reads = _checksums(before, "deps"), _checksums(after, "deps")
    paths = [path for path in dict.fromkeys([*reads, *read]) if read.get(path) != reads.get(path)]
    yield from (path for path in paths if path.startswith(CODE))
    yield from (path for path in paths if not path.startswith(CODE))


def _checksums(stage: Mapping[str, Any] | None, kind: str) -> dict[str, str]:
    """The checksum of each dependency ("deps") or output ("outs") of a stage, by path."""
    listed = (stage or {}).get(kind) or []
    return {one["path"]: str(one.get("md5")) for one in listed if isinstance(one, dict) and "path" in one}


def _yaml(revision: Revision, path: str) -> dict[str, Any]:
    """A YAML file of DVC; empty if it does not exist. libyaml parses it in a tenth of the time that Python takes."""
    try:
        content = yaml.load(revision.read(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except Absent:
        return {}
    except (yaml.YAMLError, ValueError) as error:
        raise TemperError(f"{revision.name}: {path}: expected valid YAML, received {error}") from None
    return content if isinstance(content, dict) else {}


def _looked_up(values: Any, key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _equal(one: Any, other: Any) -> bool:
    """Whether two values are equal, also as numbers: PyYAML reads `3e-06`, which DVC writes, as a text."""
    if type(one) is bool or type(other) is bool or one is None or other is None:
        return one is other
    try:
        return one == other or float(one) == float(other)
    except (TypeError, ValueError):
        return False


def _shown(value: Any) -> str | None:
    return None if value is None else str(value)
