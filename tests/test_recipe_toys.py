"""Every recipe to a trained model, on a toy in its source's exact published layout.

Only overrides as a user types them cut epochs and sizes; the backbones are the real ones, with random weights.
"""

import functools
import hashlib
import http.server
import json
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from test_urls_source import MULTIMEDIA, OCCURRENCE, gbif_archive, medium, text_table

from tests.toys import published
from tests.toys.kaggle_server import KaggleServer
from tests.toys.photos import toy_photo
from tests.toys.workspace import ROOT, Workspace, ran

pytestmark = pytest.mark.slow

Make = Callable[[dict[str, Any]], Workspace]

CUT = {"backbone.weights": "none", "batch_size": 8, "warm_up.epochs": 1, "warm_up.views": 1, "fine_tune.epochs": 1}


def start(make_workspace: Make, recipe: str) -> Workspace:
    """A repository with a recipe as its params.yaml."""
    return make_workspace(yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")))


def train(workspace: Workspace, **overrides: Any) -> dict[str, Any]:
    """Runs `dvc exp run -S ...` and returns the metrics of the test images; `a__b=1` is `-S a.b=1`."""
    values = CUT | {name.replace("__", "."): value for name, value in overrides.items()}
    typed = " ".join("-S " + shlex.quote(f"{name}={value}") for name, value in values.items())
    output = workspace.run(f"dvc exp run {typed}")
    assert ran(output)[-1] == "evaluate", output
    metrics: dict[str, dict[str, Any]] = {
        stage: json.loads((workspace.folder / f"metrics/{stage}/metrics.json").read_text(encoding="utf-8"))
        for stage in ("normalize", "evaluate")
    }
    assert metrics["evaluate"]["images"] == metrics["normalize"]["test"]
    return metrics["normalize"] | metrics["evaluate"]


def classes(workspace: Workspace) -> list[str]:
    return (workspace.folder / "data/classes.txt").read_text(encoding="utf-8").splitlines()


def write(path: Path, data: bytes) -> dict[str, str]:
    """Writes an archive; returns its path and checksum."""
    path.write_bytes(data)
    return {"archive": str(path), "sha256": hashlib.sha256(data).hexdigest()}


def archive(source: str, path: Path, data: bytes) -> dict[str, str]:
    return {f"sources.{source}.{key}": value for key, value in write(path, data).items()}


def test_flowers(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "flowers")
    train(workspace, image_size=48, **archive("flowers", tmp_path / "f.tgz", published.flowers()))
    assert classes(workspace) == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


def test_cifar100(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "cifar100")
    train(workspace, **archive("cifar100", tmp_path / "c.tgz", published.cifar100()))
    assert classes(workspace) == ["fruit", "insects"]


def test_cub(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "cub")
    metrics = train(workspace, image_size=40, **archive("cub", tmp_path / "c.tgz", published.cub()))
    assert classes(workspace) == published.BIRDS and metrics["test"] == 24


def test_stanford_cars(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "stanford_cars")
    photos = published.stanford_cars(tmp_path / "photos")
    cut = {"image_size": 40, "warm_up__head__units": "[16, 8]"}
    metrics = train(workspace, **cut, sources__local=photos, detect__detector="published")
    assert classes(workspace) == sorted(published.CARS) and metrics["test"] == 24
    boxes = pq.read_table(workspace.folder / "data/boxes.parquet")
    assert len(boxes) == 84  # of each photo, which pack cropped to


def test_kaggle_four_classes(make_workspace: Make) -> None:
    """With a rectangular image size, names that splits do not agree on, and test photos without labels."""
    workspace = start(make_workspace, "kaggle_four_classes")
    datasets = {"duttadebadri/image-classification": {1: published.kaggle_four_classes()}}
    keys = [secrets.token_hex(16) for _ in range(2)]  # in no file before
    with KaggleServer(datasets, key=keys[0], token=keys[1]) as server:
        workspace = Workspace(workspace.folder, workspace.environment | server.environment)
        metrics = train(workspace, image_size="[40, 48]")
    assert classes(workspace) == ["architecture", "art and culture", "food and drinks", "travel and adventure"]
    assert metrics["validation"] == 32 and metrics["unlabelled"] == 5 and metrics["rejected"] == 0
    assert len(pq.read_table(workspace.folder / "data/predictions.parquet")) == metrics["test"] + 5
    source = json.loads((workspace.folder / "data/raw/source.json").read_text(encoding="utf-8"))
    assert source["source"] == "kaggle" and source["version"] == 1
    for path in workspace.folder.rglob("*"):  # logs, DVC's files and cache, git's objects, downloads
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert not [key for key in keys if key.encode() in data], path


@pytest.fixture
def photo_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a folder: its address, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", folder
        listening.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_fungi(make_workspace: Make, tmp_path: Path, photo_server: tuple[str, Path]) -> None:
    """A GBIF download: two photos an occurrence, one address that is gone, a species with too few photos."""
    address, folder = photo_server
    species = ["Amanita muscaria", "Boletus edulis", "Rara avis"]
    occurrences, media = [], []
    for number in range(41):
        label = 2 if number == 40 else number % 2
        of_species = [species[label].split()[0], species[label]]
        occurrences.append([str(number), "CC_BY_4_0", "HUMAN_OBSERVATION", species[label], *of_species])
        for view in range(2):
            name = f"{number}-{view}.jpg"
            (folder / name).write_bytes(toy_photo(label, 10 * number + view, 110, ".jpg"))
            media.append(medium(str(number), "StillImage", "image/jpeg", f"{address}/{name}"))
    (folder / "0-0.jpg").unlink()
    tables = {"occurrence_txt": text_table(OCCURRENCE, occurrences), "multimedia_txt": text_table(MULTIMEDIA, media)}
    workspace = start(make_workspace, "fungi")
    archive_path = gbif_archive(tmp_path / "gbif.zip", **tables)
    metrics = train(workspace, image_size=72, sources__local=archive_path, normalize__min_per_class=20)
    assert classes(workspace) == species[:2]
    assert (metrics["rejected_unusable"], metrics["rejected_left_out"]) == (1, 2)
    rejected = (workspace.folder / "data/rejected.csv").read_text(encoding="utf-8")
    assert f"{address}/0-0.jpg,Amanita muscaria,,HTTP 404" in rejected
    raw = pq.read_table(workspace.folder / "data/raw/part-00000.parquet", columns=["licence"])
    assert set(raw["licence"].to_pylist()) == {"CC_BY_4_0"}


def write_two(folder: Path, names: tuple[str, str], count: int, first: int = 0) -> Path:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.jpg").write_bytes(toy_photo(label, first + number, 80, ".jpg"))
    return folder


def test_sushi_sandwich_with_more_photos_from_elsewhere(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "sushi_sandwich")
    photos = write_two(tmp_path / "photos", ("sushi", "sandwich"), 30)
    cut = {"image_size": 40, "sources__local": photos, "warm_up__head__units": "[16, 8]"}
    alone = train(workspace, **cut)
    assert alone["auxiliary"] == 0
    more = write_two(tmp_path / "more", ("sushi", "sandwich"), 10, first=500)
    both = train(workspace, **cut, auxiliary__source="folder", auxiliary__local=more)
    assert both["auxiliary"] == 20 and both["train"] == alone["train"] + 20
    assert (both["test"], both["validation"]) == (alone["test"], alone["validation"])


def test_a_folder_of_photos_and_a_csv(make_workspace: Make, tmp_path: Path) -> None:
    photos = write_two(tmp_path / "photos", ("sushi", "sandwich"), 24)
    workspace = start(make_workspace, "folder")
    train(workspace, image_size=40, sources__local=photos)
    rows = [f"{name}/{number},{name}" for name in ("sushi", "sandwich") for number in range(20)]
    (photos / "train.csv").write_text("\n".join(["id,label", *rows]) + "\n", encoding="utf-8")
    settings = yaml.safe_load((ROOT / "recipes/digits.yaml").read_text(encoding="utf-8"))["sources"]["csv"]
    values = yaml.safe_load((workspace.folder / "params.yaml").read_text(encoding="utf-8"))
    values["sources"]["csv"] = settings | {"images": "", "unlabelled": None}
    (workspace.folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    metrics = train(workspace, source="csv")
    assert metrics["unlabelled"] == 8 and classes(workspace) == ["sandwich", "sushi"]
