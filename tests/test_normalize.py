"""The stage `normalize` on raw tables made by hand: names, selection, quality, and that nothing vanishes."""

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from stages.fetch.__main__ import describe
from stages.fetch.source import Photo
from stages.fetch.sources import cifar100
from stages.normalize import names
from stages.normalize.__main__ import main
from temper import raw
from temper.base.errors import TemperError
from temper.photos import decode
from temper.settings.normalize import Settings
from tests.toys.workspace import ROOT, change

Row = dict[str, Any]


@dataclass
class Result:
    """What `normalize` wrote, each image by its published path."""

    images: dict[str, tuple[str | None, str]]  # class, split
    rejected: dict[str, str]  # reason
    classes: list[str]
    metrics: dict[str, int]
    printed: str

    def audit(self, name: str) -> set[tuple[str, str]]:
        """The pairs of paths that are to be looked at."""
        with Path(f"data/audit/{name}.csv").open(encoding="utf-8", newline="") as file:
            return {(row["path"], row["other_path"]) for row in csv.DictReader(file)}


Normalize = Callable[..., Result]


@pytest.fixture
def normalize_sources(in_tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Normalize:
    """Runs the stage on the rows of named sources: normalize_sources({"a": rows, "b": rows}, rename={...}, seed=1)."""

    def run(sources: dict[str, list[Row]], **changes: Any) -> Result:
        for name, own in sources.items():
            write_raw(name, own)
        values = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))
        values["fetch"] = {name: {"source": "folder", "path": "nothing"} for name in sources}
        change(values, {name if name == "seed" else f"normalize__{name}": value for name, value in changes.items()})
        main(Settings.model_validate(values))
        return read_result(capsys.readouterr().out, sum(map(len, sources.values())))

    return run


@pytest.fixture
def normalize(normalize_sources: Normalize) -> Normalize:
    """Runs the stage on one source's rows, and on those of one that only trains: normalize(rows, extra, rename=...)."""

    def run(rows: list[Row], extra: list[Row] | None = None, **changes: Any) -> Result:
        if extra is None:
            return normalize_sources({"photos": rows}, **changes)
        return normalize_sources({"photos": rows, "extra": extra}, only_train=["extra"], **changes)

    return run


def write_raw(source: str, rows: list[Row]) -> None:
    """The raw table of a named source."""
    folder = Path(raw.FOLDER) / source
    folder.mkdir(parents=True, exist_ok=True)
    with raw.RawWriter(folder) as writer:
        for row in rows:
            writer.append(complete(row))


def complete(row: Row) -> Row:
    """A row of the raw table; what is not said of it is drawn from its path."""
    digest = hashlib.sha256(str(row.get("bytes", row["path"])).encode()).hexdigest()
    drawn = {"sha256": digest, "phash": int(digest[:16], 16), "image": b"", "width": 50, "height": 40}
    return {**dict.fromkeys(raw.RAW.names), **drawn, **{k: v for k, v in row.items() if k != "bytes"}}


def read_result(printed: str, rows: int) -> Result:
    images = pq.read_table("data/images.parquet").to_pylist()
    rejected = read_rejected()
    metrics = json.loads(Path("metrics/normalize/metrics.json").read_text(encoding="utf-8"))
    assert len(images) + len(rejected) == rows == metrics["images"] + metrics["rejected"], "nothing vanishes"
    assert sum(v for name, v in metrics.items() if name.startswith("rejected_")) == metrics["rejected"]
    return Result(
        {row["path"]: (row["class_name"], row["split"]) for row in images},
        {row["path"]: row["reason"] for row in rejected},
        Path("data/classes.txt").read_text(encoding="utf-8").splitlines(),
        metrics,
        printed,
    )


def read_rejected() -> list[dict[str, str]]:
    with Path("data/rejected.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def written() -> dict[str, bytes]:
    """Every file that the stage wrote."""
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file() and "raw" not in path.parts}


def rows_of(label: str | None, count: int, split: str | None = None, **more: Any) -> list[Row]:
    return [{"path": f"{split}/{label}/{number}", "label": label, "split": split, **more} for number in range(count)]


ANTS_AND_BEES = rows_of("ant", 60) + rows_of("bee", 60)


def test_names_are_trimmed_collapsed_and_composed(normalize: Normalize) -> None:
    rows = rows_of(" ant", 20) + rows_of("ant  ", 20) + rows_of("cafe\u0301  bee", 30) + rows_of("caf\u00e9 Bee", 30)
    result = normalize(rows)
    assert result.classes == ["ant", "caf\u00e9 Bee", "caf\u00e9 bee"]  # case is kept
    assert result.metrics["merged_names"] == 1
    assert "published as [' ant', 'ant  ']: one class, ant" in result.printed


def kaggle_rows(validation_food: str = "food") -> list[Row]:
    """The names of duttadebadri/image-classification, as its zips have them."""
    train = ["architecure", "art and culture", "food and d rinks", "travel and  adventure"]
    validation = ["architecture", "art and culture", validation_food, "travel and adventure"]
    rows = [row for label in train for row in rows_of(label, 30, "train")]
    return rows + [row for label in validation for row in rows_of(label, 10, "validation")] + rows_of(None, 9, "test")


KAGGLE_NAMES = {"architecure": "architecture", "food and d rinks": "food and drinks", "food": "food and drinks"}


def test_an_explicit_map_brings_the_names_of_splits_together(normalize: Normalize) -> None:
    result = normalize(kaggle_rows(), rename=KAGGLE_NAMES)
    assert result.classes == ["architecture", "art and culture", "food and drinks", "travel and adventure"]
    assert "published as ['food', 'food and d rinks']: one class, food and drinks" in result.printed
    assert result.metrics["unlabelled"] == 9 and result.metrics["validation"] == 40
    assert 8 < result.metrics["test"] < 45  # the published one has no labels: drawn from train


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({}, r"validation has 'architecture', train has 'architecure': add to normalize.rename architecture: archite"),
        (
            {"architecure": "architecture", "food and d rinks": "food and drinks"},
            r"validation has 'food', train has 'food and drinks': add to normalize.rename food: food and drinks, or "
            r"food: null to leave it out",
        ),
        ({**KAGGLE_NAMES, "fod": "x"}, r"normalize.rename: expected published labels .*, received 'fod'; .* 'food'\?"),
    ],
)
def test_names_that_splits_do_not_share_are_never_guessed(
    normalize: Normalize, rename: dict[str, str], message: str
) -> None:
    with pytest.raises(TemperError, match=message):
        normalize(kaggle_rows(), rename=rename)
    assert not Path("data/images.parquet").exists()


def in_split(split: str) -> list[Row]:
    return rows_of("ant", 20, split) + rows_of("bee", 20, split)


def test_published_splits_are_read_by_what_people_call_them(normalize: Normalize) -> None:
    result = normalize([*in_split("Training Set"), *in_split("val"), *in_split("seg_test")])
    assert {split: result.metrics[split] for split in ("train", "validation", "test")} == dict.fromkeys(
        ("train", "validation", "test"), 40
    )
    assert result.images["val/ant/0"] == ("ant", "validation")


def test_a_split_that_may_mean_anything_stops_until_it_is_said(normalize: Normalize) -> None:
    rows = [*ANTS_AND_BEES, *in_split("fold_1")]
    message = (
        "the published split 'fold_1' of 40 labelled images has a name of unknown meaning: add to normalize.splits "
        "fold_1: "
    )
    with pytest.raises(TemperError, match=message):
        normalize(rows)
    assert not Path("data/images.parquet").exists()
    assert normalize(rows, splits={"fold_1": "test"}).metrics["test"] == 40
    left_out = normalize(rows, splits={"fold_1": None})
    assert left_out.metrics["rejected_left_out"] == 40 and left_out.images == normalize(ANTS_AND_BEES).images
    assert set(left_out.rejected.values()) == {"of the published split fold_1, which normalize.splits leaves out"}
    with pytest.raises(TemperError, match=r"normalize.splits: expected published splits \(fold_1\), received 'fold1'"):
        normalize(rows, splits={"fold1": "test"})


def test_what_is_said_of_a_split_comes_before_what_its_name_says(normalize: Normalize) -> None:
    rows = [*in_split("train"), *in_split("test"), *in_split("eval")]
    assert normalize(rows).metrics["test"] == 80
    assert normalize(rows, splits={"eval": "validation"}).metrics["validation"] == 40


def test_the_splits_of_a_source_that_only_trains_need_no_meaning(normalize: Normalize) -> None:
    alone = normalize(ANTS_AND_BEES)
    result = normalize(ANTS_AND_BEES, rows_of("ant", 20, "fold_1") + rows_of("bee", 20, "test"))
    assert result.images.items() >= alone.images.items() and result.metrics["only_train"] == 40
    left_out = normalize(ANTS_AND_BEES, rows_of("ant", 20, "fold_1"), splits={"fold_1": None})
    assert left_out.metrics["rejected_left_out"] == 20


def test_a_name_can_be_left_out(normalize: Normalize) -> None:
    result = normalize(kaggle_rows("zebra"), rename={"architecure": "architecture", "zebra": None})
    assert set(result.rejected) == {f"validation/zebra/{number}" for number in range(10)}
    assert result.metrics["rejected_left_out"] == 10
    assert "1 class has no validation image: food and d rinks" in result.printed
    assert result.metrics["classes_without_validation"] == 1


def test_a_class_without_training_images_is_refused(normalize: Normalize) -> None:
    rows = [*ANTS_AND_BEES, *rows_of("moose", 1, "test")]
    with pytest.raises(TemperError, match="test has 'moose', which train lacks: add to normalize.rename moose: null"):
        normalize(rows)


def test_labels_of_spaces_and_unlabelled_rows(normalize: Normalize) -> None:
    result = normalize([*ANTS_AND_BEES, *rows_of("  ", 1), *rows_of(None, 3)])
    assert result.rejected == {"None/  /0": "a label of spaces"}
    assert result.metrics["unlabelled"] == 3 and result.images["None/None/0"] == (None, "unlabelled")


def test_unusable_and_small_images_are_rejected(normalize: Normalize) -> None:
    broken = {"path": "x.png", "label": "ant", "problem": "a truncated PNG", "width": None, "height": None}
    small = rows_of("ant", 2, "small", width=31, height=500)
    result = normalize(
        [*ANTS_AND_BEES, {**broken, "phash": None}, *[row | {"split": None} for row in small]], min_size=32
    )
    assert result.rejected == {
        "x.png": "a truncated PNG",
        "small/ant/0": "31x500 pixels; normalize.min_size is 32",
        "small/ant/1": "31x500 pixels; normalize.min_size is 32",
    }
    assert result.metrics["rejected_unusable"] == 1 and result.metrics["rejected_too_small"] == 2


LONG_TAIL = [row for count, name in ((300, "a"), (90, "b"), (60, "c"), (9, "d")) for row in rows_of(name, count)]


def test_rare_and_unwanted_classes_are_left_out(normalize: Normalize) -> None:
    result = normalize(LONG_TAIL, min_per_class=60)
    assert result.classes == ["a", "b", "c"] and result.metrics["rejected_left_out"] == 9
    assert result.rejected["None/d/0"] == "of the class d, which has 9 usable images; normalize.min_per_class is 60"
    result = normalize(LONG_TAIL, classes=["c", "a"])
    assert result.classes == ["a", "c"] and "not in normalize.classes" in result.rejected["None/b/0"]
    with pytest.raises(TemperError, match=r"normalize.classes: expected classes .*, received 'aa'; did you mean 'a'\?"):
        normalize(LONG_TAIL, classes=["aa", "b"])


def test_a_larger_cap_only_adds_training_images(normalize: Normalize) -> None:
    everything = normalize(LONG_TAIL).images
    before: set[str] = set()
    for cap in (5, 40, 100, 1000):
        result = normalize(LONG_TAIL, max_per_class=cap)
        train = {path for path, (_, split) in result.images.items() if split == "train"}
        assert before <= train and len(train) > len(before)
        assert max(Counter(result.images[path][0] for path in train).values()) <= cap
        assert result.images.items() <= everything.items()  # what is measured on stays, whole
        assert result.metrics["test"] == sum(split == "test" for _, split in everything.values())
        before = train
    assert before == {path for path, (_, split) in everything.items() if split == "train"}
    kept = normalize(LONG_TAIL, max_per_class=40).images
    assert normalize(LONG_TAIL[::-1], max_per_class=40).images == kept  # no order of rows decides
    assert normalize(LONG_TAIL, max_per_class=40, seed=1).images != kept


def test_balance_cuts_to_the_rarest_class(normalize: Normalize) -> None:
    result = normalize(LONG_TAIL, balance="smallest")
    counts = Counter(name for name, split in result.images.values() if split == "train")
    assert len(set(counts.values())) == 1 and len(counts) == 4
    assert result.metrics["rejected_capped"] > 250


def with_repeats() -> list[Row]:
    """Published splits, in which bytes come twice, pictures under two classes, and test pictures in train."""
    rows = (
        rows_of("ant", 30, "train")
        + rows_of("bee", 30, "train")
        + rows_of("ant", 9, "test")
        + rows_of("bee", 9, "test")
    )
    near = complete(rows[60])["phash"] ^ 3
    return [
        *rows,
        {"path": "equal", "label": "ant", "split": "train", "bytes": "train/ant/0"},
        {"path": "leak", "label": "ant", "split": "train", "phash": near},
        {"path": "other class", "label": "bee", "split": "train", "bytes": "train/ant/1"},
    ]


def test_repeats_are_reported(normalize: Normalize) -> None:
    result = normalize(with_repeats(), near_duplicates=4)
    assert result.metrics["rejected"] == 0
    assert result.audit("duplicates") == {("equal", "train/ant/0")}
    assert result.audit("leaks") == {("leak", "test/ant/0")}
    assert result.audit("conflicts") == {("other class", "train/ant/1"), ("train/ant/1", "other class")}
    assert {frozenset(pair) for pair in result.audit("near_duplicates")} == {frozenset(("test/ant/0", "leak"))}
    found = {name: result.metrics[name] for name in ("duplicates", "leaks", "conflicts", "near_duplicate_pairs")}
    assert found == {"duplicates": 1, "leaks": 1, "conflicts": 2, "near_duplicate_pairs": 1}


@pytest.mark.parametrize(
    ("change", "rejected"),
    [
        ({"duplicates": "remove"}, {"equal": "the same bytes as train/ant/0"}),
        ({"leaks": "remove"}, {"leak": "nearly the same picture as test/ant/0 (test)"}),
        (
            {"conflicts": "remove"},
            {
                "other class": "nearly the same picture as train/ant/1 of class ant",
                "train/ant/1": "nearly the same picture as other class of class bee",
            },
        ),
    ],
    ids=str,
)
def test_repeats_are_removed_on_demand(normalize: Normalize, change: Row, rejected: dict[str, str]) -> None:
    assert normalize(with_repeats(), near_duplicates=4, **change).rejected == rejected


def test_a_source_that_only_trains_joins_train_and_moves_nothing(normalize: Normalize) -> None:
    alone = normalize(ANTS_AND_BEES, near_duplicates=4)
    tested = next(path for path, (_, split) in alone.images.items() if split == "test")
    phash = next(complete(row)["phash"] for row in ANTS_AND_BEES if row["path"] == tested)
    extra = [
        *({"path": f"extra/{number}", "label": "Ant", "split": "test"} for number in range(20)),
        {"path": "extra/peek", "label": "Ant", "phash": phash ^ 1},
        {"path": "extra/cat", "label": "cat"},
        {"path": "extra/none", "label": None},
        {"path": "extra/wasp", "label": "wasp"},
    ]
    rename = {"Ant": "ant", "wasp": None}
    result = normalize(ANTS_AND_BEES, extra, near_duplicates=4, rename=rename)
    assert result.images.items() >= alone.images.items()
    assert {result.images[f"extra/{number}"] for number in range(20)} == {("ant", "train")}
    assert result.metrics["only_train"] == 20
    assert result.rejected == {
        "extra/peek": f"nearly the same picture as {tested} (test)",
        "extra/cat": "of 'cat', which only a source that only trains has",
        "extra/none": "without a label, of a source that only trains",
        "extra/wasp": "of 'wasp', which is left out",
    }
    assert "only sources of normalize.only_train have, left out: cat; see normalize.rename" in result.printed


def test_a_further_source_moves_none_and_the_order_of_sources_decides_nothing(normalize_sources: Normalize) -> None:
    """DVC takes two orders of the same keys for equal params: what is written must be the same as well."""
    twins = [row | {"bytes": f"None/ant/{number}"} for number, row in enumerate(rows_of("bee", 30, "twin"))]
    more = [row | {"split": None} for row in [*rows_of("ant", 30, "more"), *rows_of("cat", 60, "more"), *twins]]
    settings: Row = {"near_duplicates": 4, "duplicates": "remove"}
    alone = normalize_sources({"photos": ANTS_AND_BEES}, **settings)
    found = []
    for order in (("photos", "a"), ("a", "photos")):
        result = normalize_sources({n: {"photos": ANTS_AND_BEES, "a": more}[n] for n in order}, **settings)
        assert result.images.items() >= alone.images.items()
        assert result.classes == ["ant", "bee", "cat"] and result.metrics["conflicts"] == 60
        found.append(written())
    assert found[0] == found[1]


def test_rejected_images_name_their_source(normalize_sources: Normalize) -> None:
    """Two sources may have the same paths."""
    broken = {"path": "x", "label": "ant", "problem": "a truncated PNG", "phash": None, "width": None, "height": None}
    normalize_sources({"b": [broken], "photos": ANTS_AND_BEES, "a": [broken]})
    assert [(row["source"], row["path"]) for row in read_rejected()] == [("a", "x"), ("b", "x")]


def test_equal_bytes_of_a_source_that_only_trains_cost_none_of_the_others_whatever_its_name(
    normalize_sources: Normalize,
) -> None:
    alone = normalize_sources({"photos": ANTS_AND_BEES}, duplicates="remove")
    extra = [row | {"path": f"again/{row['path']}", "bytes": row["path"]} for row in ANTS_AND_BEES]
    for name in ("a", "z"):
        sources = {"a": extra, "photos": ANTS_AND_BEES} if name == "a" else {"photos": ANTS_AND_BEES, "z": extra}
        result = normalize_sources(sources, only_train=[name], duplicates="remove")
        assert result.images == alone.images and result.metrics["only_train"] == 0


def drawn_into(split: str, rows: list[Row], result: Result) -> Row:
    """The first row that was drawn into a split."""
    return next(row for row in rows if result.images[row["path"]][1] == split)


def test_a_picture_of_a_published_split_is_removed_from_whatever_is_drawn(normalize: Normalize) -> None:
    rows = ANTS_AND_BEES + rows_of("ant", 9, "validation") + rows_of("bee", 9, "validation")
    tested = drawn_into("test", ANTS_AND_BEES, normalize(rows, near_duplicates=4))
    rows[-1] = rows[-1] | {"bytes": tested["path"]}
    reported = normalize(rows, near_duplicates=4)
    assert reported.audit("leaks") == {(tested["path"], "validation/bee/8")} and not reported.rejected
    removed = normalize(rows, near_duplicates=4, leaks="remove")
    assert removed.rejected == {tested["path"]: "nearly the same picture as validation/bee/8 (validation)"}


def test_an_image_that_only_trains_costs_none_of_the_others(normalize: Normalize) -> None:
    alone = normalize(ANTS_AND_BEES, near_duplicates=4)
    extra: list[Row] = []
    for split in ("train", "validation", "test"):
        row = drawn_into(split, ANTS_AND_BEES[:60], alone)
        extra.append({"path": f"extra/{split}", "label": "bee", "bytes": row["path"]})
    result = normalize(ANTS_AND_BEES, extra, near_duplicates=4, conflicts="remove")
    assert result.images == alone.images and len(result.rejected) == 3
    assert result.rejected["extra/train"].endswith("of class ant")


def test_conflicts_leave_published_splits_whole(normalize: Normalize) -> None:
    rows = [*ANTS_AND_BEES, *rows_of("ant", 9, "test"), *rows_of("bee", 9, "test")]
    rows[0] = rows[0] | {"label": "bee", "bytes": "test/ant/0"}
    assert set(normalize(rows, conflicts="remove").rejected) == {"None/ant/0"}


def test_re_encoded_pictures_are_reported(normalize: Normalize) -> None:
    rows = [*ANTS_AND_BEES, *({"path": f"again/{n}", "label": "ant", "phash": 7, "split": None} for n in range(4))]
    for distance in (0, 4):
        result = normalize(rows, near_duplicates=distance)
        assert result.metrics["near_duplicate_pairs"] == 3
        assert len(result.audit("near_duplicates")) == 3


def test_a_class_that_takes_no_part_stays_out(normalize: Normalize) -> None:
    broken = {"path": "x", "label": "cat", "problem": "a truncated PNG", "phash": None, "width": None, "height": None}
    extra = rows_of("cat", 50, "extra") + rows_of("ant", 5, "extra")
    result = normalize([*ANTS_AND_BEES, broken], extra, min_per_class=20)
    assert result.classes == ["ant", "bee"] and result.metrics["only_train"] == 5
    assert "1 classes have too few usable images and are left out: cat" in result.printed
    assert "which has 0 usable images" in result.rejected["extra/cat/0"]
    chosen = normalize(
        [*ANTS_AND_BEES, *rows_of("moose", 3, "test"), *rows_of("ant", 3, "test")], classes=["ant", "bee"]
    )
    assert chosen.classes == ["ant", "bee"]  # nobody is asked what a moose is in train


def test_only_usable_images_make_a_class(normalize: Normalize) -> None:
    same = next(row for row in ANTS_AND_BEES if normalize(ANTS_AND_BEES).images[row["path"]] == ("ant", "train"))
    cats = [row | {"bytes": f"{same['path']}"} for row in rows_of("cat", 60)]
    assert normalize([*ANTS_AND_BEES, *cats], min_per_class=30).classes == ["ant", "bee", "cat"]
    cut = normalize([*ANTS_AND_BEES, *cats], min_per_class=30, duplicates="remove")
    assert cut.classes == ["ant", "bee"] and "which has 1 usable images" in cut.rejected["None/cat/0"]


def test_images_that_only_train_fill_a_cap_and_replace_none(normalize: Normalize) -> None:
    for settings in ({"max_per_class": 50}, {"balance": "smallest"}):
        alone = normalize(ANTS_AND_BEES, **settings)
        result = normalize(ANTS_AND_BEES, rows_of("ant", 200, "extra"), **settings)
        assert result.images.items() >= alone.images.items()
        train = [name for name, split in result.images.values() if split == "train"]
        cap = 50 if "max_per_class" in settings else Counter(train)["bee"]
        assert Counter(train)["ant"] == cap


def test_photos_of_a_published_test_split_move_nothing_to_and_fro(normalize: Normalize) -> None:
    before = normalize(ANTS_AND_BEES).images
    after = normalize([*ANTS_AND_BEES, *rows_of("ant", 5, "test"), *rows_of("bee", 5, "test")]).images
    for path, (_, split) in before.items():
        assert after[path][1] == ("train" if split == "test" else split)


def test_labels_of_a_source_that_only_trains_beside_coarse_ones(normalize: Normalize) -> None:
    rows = [row | {"coarse": "insect" if number % 2 else "bug"} for number, row in enumerate(ANTS_AND_BEES)]
    assert normalize(rows, rows_of("bug", 7, "extra"), labels="coarse").metrics["only_train"] == 7


def test_coarse_labels(normalize: Normalize) -> None:
    rows = [row | {"coarse": "insect" if number % 2 else "bug"} for number, row in enumerate(ANTS_AND_BEES)]
    assert normalize(rows, labels="coarse").classes == ["bug", "insect"]
    with pytest.raises(TemperError, match="expected a source with coarse labels, received one without; set fine"):
        normalize(ANTS_AND_BEES, labels="coarse")


def test_equal_tables_give_equal_bytes(normalize: Normalize) -> None:
    normalize(with_repeats(), near_duplicates=4)
    first = written()
    normalize(with_repeats(), near_duplicates=4)
    assert written() == first


@pytest.fixture(scope="module")
def cifar(shared: Path) -> list[Photo]:
    archive = shared / "data/cifar100/cifar-100-python.tar.gz"
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    settings = cifar100.Settings(source="cifar100", path="nothing", archive=str(archive), sha256=digest)
    return list(cifar100.open_source(settings).photos)


@pytest.mark.parametrize("caps", [(None, None), (30, 40)], ids=str)
def test_500_more_images_move_none_of_cifar(
    normalize: Normalize, cifar: list[Photo], caps: tuple[int | None, int | None]
) -> None:
    rows = [describe(photo) | {"split": None, "image": b""} for photo in cifar]
    for row in rows:
        row["path"] += f" {row['label']}"  # one published name is there twice
    train, more = rows[:5000], rows[5000:5500]
    before = normalize(train, near_duplicates=4, max_per_class=caps[0]).images
    every = [train[i] for i in np.random.default_rng(0).permutation(5000)] + more
    after = normalize(more + every[:5000], near_duplicates=4, max_per_class=caps[1]).images
    both = before.keys() & after.keys()
    assert {path: after[path] for path in both} == {path: before[path] for path in both}
    assert len(both) > 4900 if caps[0] is None else len(both) > 3500


def test_planted_jpeg_copies_are_found(normalize: Normalize, cifar: list[Photo]) -> None:
    """200 test images in train, re-encoded at quality 90: at least 95 % found, at most 1 % false pairs without."""
    rows = [describe(photo) | {"image": b""} for photo in cifar]
    alone = normalize(rows, near_duplicates=4)
    assert alone.metrics["near_duplicate_pairs"] <= 0.01 * len(rows)
    assert alone.metrics["leaks"] <= 0.01 * len(rows)
    picked = np.random.default_rng(0).choice(range(5000, 6000), 200, replace=False)
    planted = []
    for number in picked:
        photo = cifar[number]
        bgr = cv2.cvtColor(decode(photo.data), cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        planted.append(describe(Photo(f"planted/{number}", photo.label, "train", jpeg)) | {"image": b""})
    result = normalize(rows + planted, near_duplicates=4, leaks="remove")
    found = sum(path.startswith("planted/") for path in result.rejected)
    assert found >= 0.95 * 200, found


@pytest.mark.parametrize("label", ["ro\x00se", "rose\x1b[31m", "\x7f"])
def test_a_control_character_in_a_name_is_refused(label: str) -> None:
    with pytest.raises(TemperError, match="expected names without control characters, received"):
        names.rename([label, "tulip"], {}, "normalize.rename")
