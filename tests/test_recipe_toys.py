"""Every recipe on a toy in its source's exact published layout, and every recipe's backbone to an exported model.

Of the recipes with the same backbone, one is trained; the others end with their packed images. Only overrides as a user
types them cut epochs and sizes; the backbones are the real ones, with random weights.
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

from tests.toys import published
from tests.toys.gbif import MULTIMEDIA, OCCURRENCE, gbif_archive, medium, text_table
from tests.toys.kaggle_server import KaggleServer
from tests.toys.photos import toy_photo
from tests.toys.workspace import ROOT, Workspace, ran

pytestmark = pytest.mark.slow

Make = Callable[[dict[str, Any]], Workspace]

CUT = {"backbone.weights": "none", "batch_size": 8, "embed.views": 1, "warm_up.epochs": 1, "fine_tune.epochs": 1}


def start(make_workspace: Make, recipe: str) -> Workspace:
    """A repository with a recipe as its params.yaml."""
    return make_workspace(yaml.safe_load((ROOT / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")))


def train(workspace: Workspace, **overrides: Any) -> dict[str, Any]:
    """Runs the pipeline with `dvc exp run -S ...`; the metrics of the photos and of the trained model."""
    output = exp_run(workspace, "", **overrides)
    assert {"fine_tune", "evaluate", "export"} <= set(ran(output)), output
    photos, trained = metrics(workspace, "normalize"), metrics(workspace, "evaluate")
    assert trained["test_images"] == photos["test"]
    return photos | trained


def pack(workspace: Workspace, **overrides: Any) -> dict[str, Any]:
    """Runs the pipeline up to the packed images with `dvc exp run -S ... pack`; the metrics of the photos."""
    output = exp_run(workspace, "pack", **overrides)
    assert "pack" in ran(output), output
    return metrics(workspace, "normalize")


def metrics(workspace: Workspace, stage: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((workspace.folder / f"metrics/{stage}/metrics.json").read_text("utf-8"))
    return values


def exp_run(workspace: Workspace, target: str, **overrides: Any) -> str:
    """Runs `dvc exp run -S ...` with `CUT` and these overrides and returns what it printed; `a__b=1` is `-S a.b=1`.

    A key that params.yaml does not have yet is typed as `-S +a.b=1`.
    """
    values = CUT | {name.replace("__", "."): value for name, value in overrides.items()}
    params = yaml.safe_load((workspace.folder / "params.yaml").read_text(encoding="utf-8"))
    if params["warm_up"].get("solver") == "logistic":
        del values["warm_up.epochs"]  # it has none
    if params["fine_tune"].get("schedule", {}).get("warm_up"):
        values["fine_tune.epochs"] = 2  # the rate rises in the first
    plus = {name: "" if has(params, name) else "+" for name in values}
    typed = " ".join("-S " + shlex.quote(f"{plus[name]}{name}={value}") for name, value in values.items())
    return workspace.run(f"dvc exp run {typed} {target}")


def has(params: Any, name: str) -> bool:
    """Whether params have the key `a.b`."""
    for key in name.split("."):
        if key not in params:
            return False
        params = params[key]
    return True


def classes(workspace: Workspace) -> list[str]:
    return (workspace.folder / "data/classes.txt").read_text(encoding="utf-8").splitlines()


def write(path: Path, data: bytes) -> dict[str, str]:
    """Writes an archive; returns its path and checksum."""
    path.write_bytes(data)
    return {"archive": str(path), "sha256": hashlib.sha256(data).hexdigest()}


def archive(source: str, path: Path, data: bytes) -> dict[str, str]:
    return {f"fetch.{source}.{key}": value for key, value in write(path, data).items()}


def test_flowers(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "flowers")
    pack(workspace, image_size=48, **archive("flowers", tmp_path / "f.tgz", published.flowers()))
    assert classes(workspace) == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]


def test_cifar100(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "cifar100")
    train(workspace, **archive("cifar100", tmp_path / "c.tgz", published.cifar100()))
    assert classes(workspace) == ["fruit", "insects"]


def test_cub(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "cub")
    found = pack(workspace, image_size=40, **archive("cub", tmp_path / "c.tgz", published.cub()))
    assert classes(workspace) == published.BIRDS and found["test"] == 24


def test_stanford_cars(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "stanford_cars")
    photos = published.stanford_cars(tmp_path / "photos")
    cut = {"image_size": 40, "warm_up__head__units": "[16, 8]"}
    cut |= {"fine_tune__epochs": 4, "fine_tune__schedule__epochs": "[1, 2, 3]"}  # its steps are inside the phase
    found = train(workspace, **cut, fetch__cars__path=photos, detect__detector="published")
    assert classes(workspace) == sorted(published.CARS) and found["test"] == 24
    boxes = pq.read_table(workspace.folder / "data/boxes.parquet")
    assert len(boxes) == 84  # of each photo, which pack cropped to


def test_kaggle_four_classes(make_workspace: Make) -> None:
    """With a rectangular image size, names that splits do not agree on, and test photos without labels."""
    workspace = start(make_workspace, "kaggle_four_classes")
    datasets = {"duttadebadri/image-classification": {1: published.kaggle_four_classes()}}
    keys = [secrets.token_hex(16) for _ in range(2)]  # in no file before
    with KaggleServer(datasets, key=keys[0], token=keys[1]) as server:
        workspace = Workspace(workspace.folder, workspace.environment | server.environment)
        found = train(workspace, image_size="[40, 48]")
    assert classes(workspace) == ["architecture", "art and culture", "food and drinks", "travel and adventure"]
    assert found["validation"] == 32 and found["unlabelled"] == 5 and found["rejected"] == 0
    assert len(pq.read_table(workspace.folder / "data/predictions.parquet")) == found["test"] + 5
    source = json.loads((workspace.folder / "data/raw/kaggle/source.json").read_text(encoding="utf-8"))
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
    # The server is on this machine.
    source = {"fetch__gbif__path": archive_path, "fetch__gbif__allow_private_addresses": True}
    found = train(workspace, image_size=72, **source, normalize__min_per_class=20)
    assert classes(workspace) == species[:2]
    assert (found["rejected_unusable"], found["rejected_left_out"]) == (1, 2)
    rejected = (workspace.folder / "data/rejected.csv").read_text(encoding="utf-8")
    assert f"{address}/0-0.jpg,Amanita muscaria,,HTTP 404" in rejected
    raw = pq.read_table(workspace.folder / "data/raw/gbif/part-00000.parquet", columns=["licence"])
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
    cut = {"image_size": 40, "fetch__photos__path": photos, "warm_up__head__units": "[16, 8]"}
    alone = train(workspace, **cut)
    assert alone["only_train"] == 0
    more = write_two(tmp_path / "more", ("sushi", "sandwich"), 10, first=500)
    second = {"fetch__more__source": "folder", "fetch__more__path": more, "normalize__only_train": "[more]"}
    both = pack(workspace, **cut, **second)
    assert both["only_train"] == 20 and both["train"] == alone["train"] + 20
    assert (both["test"], both["validation"]) == (alone["test"], alone["validation"])


def test_a_folder_of_photos(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "folder")
    photos = write_two(tmp_path / "photos", ("sushi", "sandwich"), 24)
    train(workspace, image_size=40, fetch__photos__path=photos)
    assert classes(workspace) == ["sandwich", "sushi"]


def test_a_competition_of_a_csv_and_folders(make_workspace: Make, tmp_path: Path) -> None:
    workspace = start(make_workspace, "csv")
    photos = published.competition(tmp_path / "photos")
    found = pack(workspace, image_size=40, fetch__photos__path=photos, fetch__photos__unlabelled="test")
    assert classes(workspace) == published.BREEDS and found["unlabelled"] == 7
    assert found["train"] + found["validation"] + found["test"] == 48 and found["rejected"] == 0
