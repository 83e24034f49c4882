"""`python -m apps.predict`: what is read, in which order it is answered and shown, and how it ends."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps import predict
from stages import pack
from stages.detect.detectors.yolox import Settings, YoloxDetector
from temper import boxes, images, raw
from temper.base.errors import TemperError
from temper.card import Card, Crop
from temper.comparing.ensembles import combine
from temper.inference import models as inference
from temper.inference.cropping import DetectorChoice, MainObjectFinder
from temper.inference.models import BATCH, Answer, Models, answers
from temper.inference.named_photos import Encoded, NamedPhoto, expand, read
from temper.packs import Pack
from temper.photos import Pixels
from temper.predictor import Predictor
from temper.settings.pack import MainBox
from temper.settings.pack import Settings as PackSettings
from tests.toys.cars import FOLDER
from tests.toys.detector import (
    CAR_IN_BUS,
    CLASSES,
    SIDE,
    as_photos,
    nano_settings,
    toy_detector,
    write_toy_detector,
    yolox_section,
)
from tests.toys.exported import WHOLE, set_card, write_exported
from tests.toys.photos import toy_photo
from tests.toys.starting import start
from tests.toys.tables import gray, write_raw
from tests.toys.workspace import ROOT, Workspace


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A classifier in every format, made for photos of 32x32; leave them as they are."""
    return write_exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture
def photos(in_tmp_path: Path) -> Path:
    """The working folder, with six photos in folders, what is no photo, and what only looks like one."""
    for name, number in (("a/2.png", 0), ("a/10.png", 1), ("a/b/1.JPG", 2), ("c.png", 3), ("[d].png", 4), ("é.png", 5)):
        path = in_tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(toy_photo(number, number, 40, path.suffix.lower()))
    (in_tmp_path / "a/notes.txt").write_text("no photo", encoding="utf-8")
    (in_tmp_path / "a/.hidden.png").write_bytes(toy_photo(0, 9))
    (in_tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no JPEG")
    (in_tmp_path / "empty").mkdir()
    os.mkfifo(in_tmp_path / "pipe.jpg")
    return in_tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    return predict.main()


def expected(model: Path, *paths: str) -> list[list[float]]:
    """The probabilities of each photo, one photo and one model at a time."""
    predictor = Predictor(model)
    return [predictor.probabilities([predictor.prepare(path)])[0].tolist() for path in paths]


# What is read


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["c.png", "a/2.png"], ["c.png", "a/2.png"]),
        (["a"], ["a/10.png", "a/2.png", "a/b/1.JPG"]),
        (["a/*.png"], ["a/10.png", "a/2.png"]),
        (["a/**/*"], ["a/10.png", "a/2.png", "a/b/1.JPG"]),
        (["[d].png"], ["[d].png"]),  # a file of this name comes before the pattern
        (["a/notes.txt"], ["a/notes.txt"]),  # a file that is named is looked at, whatever it is called
        (["c.png", "c.png"], ["c.png", "c.png"]),
    ],
)
def test_what_is_named_is_read_in_order(photos: Path, names: list[str], meant: list[str]) -> None:
    found = list(read(expand(names)))
    assert [one.photo.name for one in found] == meant
    assert [one.data for one in found] == [Path(name).read_bytes() for name in meant]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.jpg", "No such file or directory"),
        ("nowhere/*.jpg", "a pattern that no photo matches"),
        ("empty", "a folder without photos"),
        ("a\0b", "null"),
        ("pipe.jpg", "no file"),
    ],
)
def test_what_is_not_there_has_a_reason(photos: Path, name: str, problem: str) -> None:
    (found,) = read(expand([name]))
    assert found.data == b"" and problem in str(found.problem)


class Site(BaseHTTPRequestHandler):
    """/N.png is a toy photo; all else is not there."""

    def do_GET(self) -> None:
        there = self.path.endswith(".png")
        self.send_response(200 if there else 404)
        self.end_headers()
        if there:
            self.wfile.write(toy_photo(int(self.path[1]), 0))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:secret1@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_addresses_are_read_among_files_and_shown_without_their_secrets(photos: Path, site: str) -> None:
    names = [f"{site}/1.png", "c.png", f"{site}/2.png", f"{site}/nothing", f"{site}/1.png"]
    found = list(read(expand(names), private=True))
    there = [toy_photo(1, 0), Path("c.png").read_bytes(), toy_photo(2, 0), b"", toy_photo(1, 0)]
    assert [one.data for one in found] == there
    assert found[3].problem == "HTTP 404" and not any("secret1" in one.photo.name for one in found)


def test_hosts_that_are_not_public_are_not_asked(photos: Path, site: str) -> None:
    (found,) = read(expand([f"{site}/1.png"]))
    assert found.problem == "leads to an address that is not public"


# What is answered


def test_text_is_a_line_for_each_photo(
    photos: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = exported[".tflite"]
    assert run(monkeypatch, "c.png", "a", "--model", model, "--top", 2) == 0
    (first, second, third, fourth) = capsys.readouterr().out.splitlines()
    shares = expected(model, "c.png")[0]
    best, next_best = np.argsort(shares)[::-1][:2]
    names = WHOLE.classes
    assert first == f"c.png: {names[best]} {shares[best]:.4f}, {names[next_best]} {shares[next_best]:.4f}"
    assert [line.partition(":")[0] for line in (second, third, fourth)] == ["a/10.png", "a/2.png", "a/b/1.JPG"]


@pytest.mark.parametrize("ending", [".keras", ".tflite", ".onnx"])
def test_tables_and_lists_hold_the_same_answers_and_the_reason_where_there_is_none(
    photos: Path,
    exported: dict[str, Path],
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["c.png", "broken.jpg", "é.png", "--model", exported[ending]]
    assert run(monkeypatch, *arguments, "--csv") == predict.SOME_FAILED
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert "broken.jpg: expected a photo, received a truncated or corrupt JPEG" in printed.err
    assert "1 of 3 photos could not be read" in printed.err
    assert run(monkeypatch, *arguments, "--json") == predict.SOME_FAILED
    values = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in rows] == [one["path"] for one in values] == ["c.png", "broken.jpg", "é.png"]
    assert rows[1]["problem"] == values[1]["problem"] and "classes" not in values[1] and rows[1]["class_1"] == ""
    for row, one, shares in zip(rows[::2], values[::2], expected(exported[ending], "c.png", "é.png"), strict=True):
        assert [row[f"class_{place}"] for place in (1, 2, 3)] == [guess["class"] for guess in one["classes"]]
        found = [guess["probability"] for guess in one["classes"]]
        assert found == pytest.approx(sorted(shares, reverse=True), abs=1e-5)
        assert [float(row[f"probability_{place}"]) for place in (1, 2, 3)] == pytest.approx(found, abs=1e-4)


def test_equal_commands_print_equal_bytes(
    photos: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Law 10, also with more photos than one batch."""
    for number in range(3 * BATCH):
        Path(f"many-{number:03}.png").write_bytes(toy_photo(number, number, 30 + number))
    said = []
    for _ in range(2):
        assert run(monkeypatch, "many-*.png", "--model", exported[".onnx"], "--csv") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and len(said[0].splitlines()) == 1 + 3 * BATCH


def test_nothing_read_is_a_failure(
    photos: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "broken.jpg", "nowhere.jpg", "--model", exported[".tflite"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "2 of 2 photos could not be read" in printed.err


@pytest.mark.parametrize(
    ("name", "shown"), [("=cmd|x.png", "'=cmd|x.png"), ("@a.png", "'@a.png"), ('a "b", c.png', 'a "b", c.png')]
)
def test_a_spreadsheet_finds_no_formula(name: str, shown: str) -> None:
    lines = predict.as_csv([predict.Said(Answer(name, problem="x"), ["ant"], 1)], 1)
    assert next(csv.reader([list(lines)[1]]))[0] == shown


def test_the_sheet_shows_what_the_model_saw_and_names_what_is_too_much(
    photos: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "SHEET", 2)
    assert run(monkeypatch, "a", "broken.jpg", "--model", exported[".tflite"], "--sheet", "out/sheet.png") == 3
    drawn = cv2.imread("out/sheet.png")
    assert drawn is not None and drawn.std() > 10
    assert "out/sheet.png: the first 2 of 3 photos" in capsys.readouterr().err


def test_calibrated_answers_are_scaled_by_the_card(
    photos: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path("hot.tflite")
    model.write_bytes(exported[".tflite"].read_bytes())
    set_card(model, WHOLE.model_copy(update={"temperature": 3.0}))
    said = []
    for options in ([], ["--calibrated"]):
        assert run(monkeypatch, "c.png", "--model", model, "--json", *options) == 0
        said.append(json.loads(capsys.readouterr().out)[0]["classes"])
    assert [one["class"] for one in said[0]] == [one["class"] for one in said[1]]
    assert said[1][0]["probability"] < said[0][0]["probability"]


def relabelled(path: Path, exported: dict[str, Path], classes: list[str]) -> Path:
    path.write_bytes(exported[".tflite"].read_bytes())
    set_card(path, WHOLE.model_copy(update={"classes": classes}))
    return path


def test_several_models_are_averaged_by_the_names_of_their_classes(photos: Path, exported: dict[str, Path]) -> None:
    first, third, second = WHOLE.classes
    other = relabelled(photos / "other.tflite", exported, [third, second, first])
    models = Models([str(exported[".tflite"]), str(other)], None)
    (answer,) = answers(models, read(expand(["c.png"])))
    assert answer.of_models is not None
    plain = expected(exported[".tflite"], "c.png")[0]
    assert answer.of_models[0].tolist() == plain
    assert answer.of_models[1].tolist() == [plain[2], plain[0], plain[1]]
    said = predict.Said(answer, models.classes, 3).guesses
    assert dict(said) == pytest.approx(dict(zip(models.classes, answer.of_models.mean(axis=0), strict=True)), abs=1e-6)


def test_models_of_other_classes_are_refused(photos: Path, exported: dict[str, Path]) -> None:
    other = relabelled(photos / "other.tflite", exported, ["ant", "bee", "cow"])
    with pytest.raises(TemperError, match=r"same classes, received others: 1 only in .*\(crème.*, 1 only in .*cow"):
        Models([str(exported[".tflite"]), str(other)], None)
    with pytest.raises(TemperError, match="expected different models"):
        Models([str(other), str(other)], None)


def test_models_are_each_fed_by_their_own_card(photos: Path, exported: dict[str, Path]) -> None:
    padded, stretched = str(exported[".tflite"]), photos / "stretched.tflite"
    stretched.write_bytes(exported[".tflite"].read_bytes())
    made = WHOLE.preparation.model_copy(update={"fit": "stretch"})
    set_card(stretched, WHOLE.model_copy(update={"preparation": made}))
    wide = photos / "wide.png"
    wide.write_bytes(bytes(cv2.imencode(".png", cv2.resize(cv2.imread("c.png"), (90, 30)))[1]))
    (answer,) = answers(Models([padded, str(stretched)], None), read(expand(["wide.png"])))
    assert answer.of_models is not None and not np.array_equal(*answer.of_models)
    assert answer.of_models[1].tolist() == expected(stretched, "wide.png")[0]


def test_photos_are_read_as_a_stream(exported: dict[str, Path]) -> None:
    """With endlessly many photos, answers come all the same, and few photos are read ahead."""
    taken = [0]

    def endless() -> Iterator[Encoded]:
        while True:
            taken[0] += 1
            yield Encoded(NamedPhoto("x", "x"), toy_photo(0, 0))

    stream = answers(Models([str(exported[".tflite"])], None), endless(), threads=2)
    for _ in range(10 * BATCH):
        next(stream)
    assert taken[0] <= 14 * BATCH
    stream.close()  # type: ignore[attr-defined]


def test_decoding_goes_on_beside_the_model(exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """When a model is given its second batch, the third is already being prepared."""
    models = Models([str(exported[".tflite"])], None)
    prepared = [0]
    at_batch: list[int] = []
    prepare, probabilities = models.prepare, models._probabilities

    def counted(photo: Encoded) -> inference.Prepared:
        prepared[0] += 1
        return prepare(photo)

    def noted(usable: list[inference.Prepared]) -> np.ndarray:
        for _ in range(200):  # time for the threads
            if prepared[0] >= BATCH * min(len(at_batch) + 2, 4):
                break
            threading.Event().wait(0.01)
        at_batch.append(prepared[0])
        return probabilities(usable)

    monkeypatch.setattr(models, "prepare", counted)
    monkeypatch.setattr(models, "_probabilities", noted)
    some = (Encoded(NamedPhoto("x", "x"), toy_photo(0, 0)) for _ in range(4 * BATCH))
    assert len(list(answers(models, some, threads=2))) == 4 * BATCH
    assert at_batch[:2] == [pytest.approx(2 * BATCH, abs=2 * BATCH), pytest.approx(3 * BATCH, abs=BATCH)]
    assert at_batch[0] >= 2 * BATCH and at_batch[1] >= 3 * BATCH


# How it starts


def test_an_exported_model_answers_in_half_a_second_without_tensorflow(photos: Path, exported: dict[str, Path]) -> None:
    for ending in (".tflite", ".onnx"):
        seconds, said = start("predict", [str(photos / "c.png"), "--model", str(exported[ending])])
        assert said == "" and seconds < 0.5


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "error: models/fine_tune.keras: no such file; run dvc repro, or dvc pull"),
        (["--top", "0"], 2, "--top: expected 1 or more"),
        (["--sheet", "a.jpg"], 2, "--sheet: expected a name that ends in .png"),
        (["--csv", "--json"], 2, "not allowed with"),
    ],
)
def test_wrong_commands_end_in_one_line(photos: Path, arguments: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "apps.predict", "c.png", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=photos, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


# Models that were trained on photos cropped to their main object


def cropped(path: Path, exported: dict[str, Path], crop: Crop) -> str:
    """A model that says so on its card."""
    path.write_bytes(exported[".tflite"].read_bytes())
    set_card(path, card_of(crop))
    return str(path)


def card_of(crop: Crop) -> Card:
    return WHOLE.model_copy(update={"preparation": WHOLE.preparation.model_copy(update={"crop": crop})})


def by_the_pipeline(folder: Path, data: list[bytes], detector: YoloxDetector, rule: MainBox) -> list[Pixels]:
    """The photos as `detect` and `pack` make a model's input of them."""
    table = write_raw(folder, data)
    found = detector.detect(as_photos(data))
    numbered = table["image_id"].to_pylist()
    boxes.write(boxes.PATH, "yolox", "0" * 64, ((numbered[int(number)], inside) for number, inside in found))
    settings = PackSettings.model_validate(
        {"image_size": 32, "pack": {"fit": WHOLE.preparation.fit, "margin": 0.1, "box": rule.model_dump()}}
    )
    main_objects = pack.find_main_objects(boxes.PATH, table, raw.read_metadata_of(table), rule)
    assert main_objects, "some photo is cropped"
    return list(pack.prepared(table, main_objects, settings))


def test_photos_are_cropped_as_the_pipeline_crops_them(in_tmp_path: Path, exported: dict[str, Path]) -> None:
    data = [gray(level) for level in (250, 180, 10, 90)]
    rule = MainBox(classes=["car"], score=0.3, min_box=0)
    expected_pixels = by_the_pipeline(in_tmp_path, data, toy_detector(in_tmp_path), rule)
    weights = write_toy_detector(in_tmp_path / "toy.onnx", CAR_IN_BUS)
    sha256 = yolox_section(weights)["sha256"]
    crop = Crop(detector="yolox", sha256=sha256, margin=0.1, box=rule.model_dump(mode="json"))
    model = cropped(in_tmp_path / "m.tflite", exported, crop)
    choice = DetectorChoice(str(weights), (SIDE, SIDE), CLASSES)
    models = Models([model], lambda path, of: MainObjectFinder(path, of, choice))
    found = list(answers(models, (Encoded(NamedPhoto(str(n), ""), one) for n, one in enumerate(data))))
    for answer, pixels in zip(found, expected_pixels, strict=True):
        assert answer.pixels is not None and np.array_equal(answer.pixels, pixels)
    whole = list(answers(Models([model], None), (Encoded(NamedPhoto("", ""), one) for one in data)))
    assert not np.array_equal(found[0].pixels, whole[0].pixels), "--whole"  # type: ignore[arg-type]


def test_cars_are_cropped_as_the_pipeline_crops_them(
    shared: Path, in_tmp_path: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, on real photos with the real detector; and so the probabilities are the same to the bit."""
    paths = sorted((shared / FOLDER / "cars_train").glob("*.jpg"))[:20]
    rule = MainBox(classes=["car", "truck"])
    detector = YoloxDetector(nano_settings(shared))
    expected_pixels = by_the_pipeline(in_tmp_path, [path.read_bytes() for path in paths], detector, rule)
    sha256 = Settings(detector="yolox").sha256
    crop = Crop(detector="yolox", sha256=sha256, margin=0.1, box=rule.model_dump(mode="json"))
    model = cropped(in_tmp_path / "m.tflite", exported, crop)
    weights = shared / "weights/yolox_nano.onnx"
    models = Models([model], lambda path, of: MainObjectFinder(path, of, DetectorChoice(str(weights))))
    reference = Models([model], None)
    for answer, pixels in zip(answers(models, read(expand(map(str, paths)))), expected_pixels, strict=True):
        assert answer.pixels is not None and np.array_equal(answer.pixels, pixels)
        (same,) = reference.answer([inference.Prepared("", [pixels])])
        assert answer.of_models is not None and same.of_models is not None
        assert np.array_equal(answer.of_models, same.of_models)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, [], "a detector with weights of sha256 .* cropped, which are not here: name their file by --detector-w"),
        (
            {},
            ["--detector-weights", "nowhere.onnx"],
            "nowhere.onnx: expected the weights of a detector, received No",
        ),
        (
            {},
            ["--detector-weights", "c.png"],
            "c.png: expected the weights of the detector that cropped.*the right",
        ),
        ({"detector": "published", "sha256": None}, [], "published, which a new photo does not have.*--whole"),
        ({"detector": "detectron2"}, [], "the detector detectron2, which runs in the pipeline only.*--whole"),
    ],
)
def test_what_is_missing_to_crop_is_said(
    photos: Path,
    exported: dict[str, Path],
    changes: dict[str, str],
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crop = Crop(detector="yolox", sha256="0" * 64, margin=0.1, box=MainBox().model_dump(mode="json"))
    model = cropped(photos / "m.tflite", exported, crop.model_copy(update=changes))
    with pytest.raises(TemperError, match=message) as refused:
        run(monkeypatch, "c.png", "--model", model, *options)
    assert "\n" not in str(refused.value)
    assert run(monkeypatch, "c.png", "--model", model, "--whole") == 0


def test_the_detector_is_taken_from_where_the_pipeline_left_it(
    photos: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_toy_detector(photos / "toy.onnx", CAR_IN_BUS)
    sha256 = yolox_section(weights)["sha256"]
    crop = Crop(detector="yolox", sha256=sha256, margin=0.1, box={"classes": ["car"], "min_box": 0})
    model = cropped(photos / "m.tflite", exported, crop)
    (photos / ".temper/downloads").mkdir(parents=True)
    weights.rename(photos / ".temper/downloads" / sha256)
    how = ["--detector-input", f"{SIDE}x{SIDE}", "--detector-classes", ",".join(CLASSES)]
    (photos / "bright.png").write_bytes(gray(250))
    assert run(monkeypatch, "bright.png", "--model", model, *how) == 0
    assert run(monkeypatch, "bright.png", "--model", model, "--whole") == 0
    assert len(set(capsys.readouterr().out.splitlines())) == 2, "the crop shows something else"


# A model knows how it was fed (law 3)


def test_what_pack_made_of_the_test_photos_is_what_predict_shows_the_model(
    pipeline: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit; and an edited params.yaml changes no answer."""
    folder = pipeline.folder
    monkeypatch.chdir(folder)
    table = images.read()
    test = table.filter(np.asarray(table["split"].to_pylist()) == "test")
    data = list(raw.stream_images(test))
    packed = Pack("data/packed/test")
    found = list(answers(Models(["models/fine_tune.keras"], None), (Encoded(NamedPhoto("", ""), one) for one in data)))
    assert len(found) == len(packed) > 10
    for number, answer in enumerate(found):
        assert answer.pixels is not None and np.array_equal(answer.pixels, packed.image(number))
    for number, one in enumerate(data):
        (folder / f"{number:03}.png").write_bytes(one)
    before = pipeline.run("python -m apps.predict 0*.png --csv --model models/fine_tune.keras")
    pipeline.set(image_size=48, pack__fit="crop", seed=9, lr=1.0)
    assert pipeline.run("python -m apps.predict 0*.png --csv --model models/fine_tune.keras") == before
    assert len(before.splitlines()) >= len(data)


def test_the_average_of_one_model_is_the_model() -> None:
    shares = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    assert np.array_equal(combine([shares], "average"), shares)
