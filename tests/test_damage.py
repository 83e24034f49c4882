"""What a stage writes and another reads, with bytes flipped, cut off or overwritten: one line, or the same values.

Never another exception, and never other values.
"""

import functools
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import embed, pack
from temper import boxes, card, classes, crops, images, keras_files, raw, tables
from temper.augmentation.augment import magnitudes
from temper.base import checksums
from temper.base.errors import TemperError
from temper.detections import Boxes
from temper.embeddings import Embeddings
from temper.packs import Pack, PackWriter
from temper.settings.augmentation import Augmentation
from temper.settings.pack import Pack as PackSettings
from temper.settings.pack import Settings
from temper.shards import ShardWriter
from tests.toys.classifier import CARD
from tests.toys.tables import gray, write_raw

SIDE = 16
PHOTOS = 12
ONE = Boxes(np.array([[0, 0, 8, 12]], np.float32), np.array([0.5], np.float32), ["ant"])


@dataclass(frozen=True)
class Written:
    """What was written once, and how each kind of it is read."""

    folder: Path
    files: dict[str, list[str]]  # of each kind, relative to `folder`
    whole: dict[str, Any]  # what `read` gives of each kind


def table_values(table: pa.Table) -> list[Any]:
    return [table.to_pydict(), table.schema]


def read_pack() -> list[Any]:
    read = Pack("data/packed/train")
    return [read.images(np.arange(len(read))), read.labels, read.image_ids, read.image_shape]


def read_embeddings() -> list[Any]:
    read = Embeddings("train")
    rows = np.arange(len(read.labels))
    return [read.take(rows, rows % read.views), read.labels, read.views]


def read_raw() -> list[Any]:
    metadata = raw.read_metadata([SOURCE])
    ids = pa.array([digits[:16] for digits in metadata["sha256"].to_pylist()])
    wanted = metadata.select(["source", "part", "row"]).append_column("image_id", ids)
    streamed = list(raw.stream_images(wanted)), list(raw.stream_images(wanted.drop(["image_id"])))
    return [*table_values(metadata), streamed, *table_values(raw.read_metadata_of(wanted))]


def read_boxes() -> list[Any]:
    found = [(image_id, one.corners, one.scores, list(one.classes)) for image_id, one in boxes.read(boxes.PATH)]
    return [boxes.read_detector(boxes.PATH), *(value for row in found for value in row)]


def read_model() -> list[Any]:
    model = keras_files.load("model.keras")
    return [card.read("model.keras"), *model.get_weights(), model(np.ones((1, 4), np.float32)).numpy()]


SOURCE = "photos"
READ: dict[str, Callable[[], list[Any]]] = {
    "pack": read_pack,
    "embeddings": read_embeddings,
    "raw": read_raw,
    "images": lambda: [*table_values(images.read()), images.read(["image_id"])["image_id"].to_pylist()],
    "boxes": read_boxes,
    "crops": lambda: [crops.read()],
    "model": read_model,
}
FILES = {
    "pack": "data/packed/train/*",
    "embeddings": "data/embeddings/train/*",
    "raw": "data/raw/photos/*",
    "images": "data/images.parquet",
    "boxes": "data/boxes.parquet",
    "crops": "data/packed/crops.parquet",
    "model": "model.keras",
}
EXAMPLES = {"model": 40}  # others: 150


def write_everything() -> None:
    """Runs `pack` and `embed` in the working folder on gray photos, two of three with a box."""
    table = write_raw(Path(), [gray(level * 20, SIDE, SIDE) for level in range(PHOTOS)])
    tables.write(images.PATH, images.IMAGES, {name: table[name] for name in table.column_names})
    classes.write(["a", "b"])
    found = ((image_id, ONE) for image_id in table["image_id"].to_pylist()[::3])
    boxes.write(boxes.PATH, "yolox", "0" * 64, found)
    pack.main(Settings(image_size=(SIDE, SIDE), pack=PackSettings()))
    inputs = keras.Input((SIDE, SIDE, 3))
    backbone = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    weak = magnitudes(0.1, Augmentation())
    embed.embed(Path("data/embeddings/train"), backbone, Pack("data/packed/train"), 2, weak, 0, "train")
    inputs = keras.Input((4,))
    keras_files.save(keras.Model(inputs, keras.layers.Dense(3)(inputs)), "model.keras", CARD.as_entry())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small = functools.partial(ShardWriter, shard_bytes=2000)
        patch.setattr(embed, "ShardWriter", small)
        patch.setattr(pack, "PackWriter", functools.partial(PackWriter, shard_bytes=2000))
        write_everything()
        files = {kind: sorted(map(str, Path().glob(pattern))) for kind, pattern in FILES.items()}
        return Written(folder, files, {kind: read() for kind, read in READ.items()})


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, list) and first and isinstance(first[0], np.ndarray):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A bit flipped, a byte set, a run of bytes overwritten, the end cut off, or something appended."""
    kind = draw(st.sampled_from(["flip", "flip", "flip", "set", "zero", "cut", "append", "replace"]))
    place, value = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 255))
    from_end = draw(st.booleans())  # where formats keep what they say of themselves

    def damage(data: bytes) -> bytes:
        at = int(place * len(data))
        at = max(0, len(data) - 1 - at % 600) if from_end else at
        if kind == "cut":
            return data[:at]
        if kind == "append":
            return data + bytes([value]) * (at + 1)
        if kind == "replace":
            return b"no such file\n" * (1 + value)
        changed = bytearray(data)
        if kind == "zero":
            changed[at : at + 40] = bytes(len(changed[at : at + 40]))
        elif changed:
            changed[at] = changed[at] ^ (1 << value % 8) if kind == "flip" else value
        return bytes(changed)

    return damage


@pytest.mark.parametrize("kind", READ)
def test_damage_is_one_line_or_makes_no_difference(
    written: Written, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(written.folder)

    @settings(
        max_examples=EXAMPLES.get(kind, 150),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(written.files[kind]), damages())
    def run(name: str, damage: Callable[[bytes], bytes]) -> None:
        path = Path(name)
        before = path.read_bytes()
        path.unlink()  # what was mapped stays as it was
        path.write_bytes(damage(before))
        try:
            read = READ[kind]()
        except TemperError as error:
            assert name in str(error) and "\n" not in str(error)
        else:
            assert all(map(equal, read, written.whole[kind])) and len(read) == len(written.whole[kind])
        finally:
            path.unlink()
            path.write_bytes(before)

    run()


def overwrite(path: str, old: bytes, new: bytes) -> Callable[[], None]:
    def damage() -> None:
        content = Path(path).read_bytes()
        assert content.count(old) and len(old) == len(new)
        Path(path).unlink()
        Path(path).write_bytes(content.replace(old, new))

    return damage


def another_detector() -> None:
    """Arrow writes metadata twice, so no single flip changes what is read."""
    table = pq.read_table(boxes.PATH)
    table = table.replace_schema_metadata(table.schema.metadata | {b"detector": b"yolow"})
    pq.write_table(table, boxes.PATH)


def longer_labels() -> None:
    """As another version would have written them: with the right checksums."""
    image_ids = Pack("data/packed/train").image_ids
    with PackWriter(Path("data/packed/train"), image_ids[:-1], SIDE, SIDE) as writer:
        for _ in image_ids[:-1]:
            writer.append(np.zeros((SIDE, SIDE, 3), np.uint8))
        writer.finish(np.zeros(len(image_ids) - 1, np.int32))
    np.save("data/packed/train/labels.npy", np.zeros(len(image_ids), np.int32))
    listed = checksums.from_json(Path("data/packed/train/checksums.json").read_text(), "")
    listed["labels.npy"] = checksums.of_file(Path("data/packed/train/labels.npy"))
    Path("data/packed/train/checksums.json").write_text(checksums.as_json(listed))


def no_model_inside() -> None:
    with zipfile.ZipFile("model.keras") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile("model.keras", "w") as file:
        for name, content in (entries | {"config.json": b"no JSON"}).items():
            file.writestr(name, content)


# Damage that is rare by chance: what is done, what is read then, and what is said.
RARE: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "metadata": (another_detector, read_boxes, "boxes.parquet: damaged: its metadata"),
    "a name in the raw table": (
        overwrite("data/raw/photos/part-00000.parquet", b"sha256", b"sha255"),
        read_raw,
        "part-00000.parquet: expected a raw table",
    ),
    "too many labels": (longer_labels, read_pack, "labels.npy: expected 11 values, one a row, received 12"),
    "labels of more classes": (
        lambda: None,
        lambda: Pack("data/packed/train", 0),
        "labels.npy: expected -1, or the number of one of the classes, received 0 for row 0",
    ),
    "classes that images do not have": (
        lambda: classes.write(["b"]),
        lambda: pack.main(Settings(image_size=(SIDE, SIDE), pack=PackSettings())),
        "images.parquet: expected classes of data/classes.txt, received a; run dvc repro",
    ),
    "a configuration that is no JSON": (no_model_inside, read_model, "model.keras: expected a model written by Keras"),
    "boxes of other images": (
        lambda: boxes.write(boxes.PATH, "yolox", None, iter([("f" * 16, ONE)])),
        lambda: pack.main(Settings(image_size=(SIDE, SIDE), pack=PackSettings())),
        "boxes.parquet: expected boxes of the photos of data/images.parquet, received some of ffffffffffffffff",
    ),
}


@pytest.mark.parametrize("name", RARE)
def test_rare_damage_is_named(written: Written, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(written.folder, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    damage, read, said = RARE[name]
    damage()
    with pytest.raises(TemperError, match=re.escape(said)) as refused:
        read()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", READ)
def test_a_file_that_is_gone_is_named(written: Written, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written.folder)
    for name in written.files[kind]:
        before = Path(name).read_bytes()
        Path(name).unlink()
        try:
            with pytest.raises(TemperError, match=f"{Path(name).name}.*dvc repro"):
                READ[kind]()
        finally:
            Path(name).write_bytes(before)
