"""The server of exported models, run for real in the environment of its own lock: answers, limits, damage, the end."""

import argparse
import base64
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests

from temper.card import Crop
from temper.explanations.occlusion import occlusion_map
from temper.inference import detector_arguments
from temper.inference import models as inference
from temper.inference.cropping import MainObjectFinder
from temper.inference.named_photos import Encoded, NamedPhoto
from temper.predictor import Predictor
from tests.toys.colours import CLASSES, append_card, photo, write_colours
from tests.toys.detector import SIDE, write_toy_detector
from tests.toys.lambda_runtime import event_2, has_lambda, running
from tests.toys.served import PYTHON, Served, require_environment, served
from tests.toys.soak import BOMB, NONSENSE, PHOTOS, soak
from tests.toys.workspace import ROOT

TRACE = re.compile(r"Traceback|\.py|line \d", re.I)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported classifier; leave it as it is."""
    require_environment()
    return write_colours(tmp_path_factory.mktemp("model") / "colours.tflite")


@pytest.fixture(scope="module")
def other(model: Path) -> Path:
    """The same with other names for its classes."""
    path = model.with_name("other.tflite")
    content = model.read_bytes()
    path.write_bytes(content[: content.index(b"PK\x03\x04")])
    append_card(path, ["rot", "grün", "blau"])
    return path


@pytest.fixture(scope="module")
def server(model: Path, other: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the usual limits that fetches from any address; tests leave it as it is."""
    log = tmp_path_factory.mktemp("server") / "log"
    with served([model, other], log, "--addresses", "--private") as running:
        yield running
        assert "Traceback" not in running.said()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Pages at an address of this machine: a photo, one that is too long, one that never ends, redirects."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            data = {"/photo.jpg": photo(1), "/long": b"\0" * 21_000_000}.get(self.path)
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def first(answer: requests.Response) -> dict[str, Any]:
    """What became of the first photo."""
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["photos"][0]
    return found


def classes(found: dict[str, Any], number: int = 0) -> list[tuple[str, float]]:
    return [(one["name"], one["probability"]) for one in found["answers"][number]["classes"]]


def rounded(guesses: list[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name, round(probability, 6)) for name, probability in guesses]


# --- Answers


@pytest.mark.parametrize("way", ["raw", "form", "base64", "data", "address"])
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp"])
def test_a_photo_is_answered_as_the_predictor_does(
    server: Served, model: Path, site: str, way: str, ending: str
) -> None:
    data = photo(1, 5, ending) if way != "address" else photo(1)
    text = base64.b64encode(data).decode()
    if way == "raw":
        answer = server.post(data)
    elif way == "form":
        answer = requests.post(f"{server.url}/predict", files={"photo": ("p", data)}, timeout=60)
    else:
        entry = {"base64": {"base64": text}, "data": {"base64": f"data:image/x;base64,{text}"}}
        content = {"photos": [entry.get(way, {"address": f"{site}/to//photo.jpg"})]}
        answer = requests.post(f"{server.url}/predict", json=content, timeout=60)
    assert classes(first(answer)) == rounded(Predictor(model).predict(data))


def test_a_large_photo_is_prepared_as_in_training(server: Served, model: Path) -> None:
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), (4000, 3000))
    data = bytes(cv2.imencode(".jpg", smooth)[1])
    assert classes(first(server.post(data))) == rounded(Predictor(model).predict(data))


def test_photos_of_one_request_keep_their_order_and_their_own_errors(server: Served) -> None:
    files = [("photo", (f"{number}.jpg", photo(number % 3))) for number in range(5)]
    files.insert(2, ("photo", ("no photo\u0007 <b>.jpg", b"nothing")))
    found = requests.post(f"{server.url}/predict?top=1", files=files, timeout=60).json()["photos"]
    assert [one["status"] for one in found] == [200, 200, 415, 200, 200, 200]
    good = [one for one in found if one["status"] == 200]
    assert [one["name"] for one in good] == [f"{number}.jpg" for number in range(5)]
    assert [classes(one)[0][0] for one in good] == [CLASSES[number % 3] for number in range(5)]
    assert [len(classes(one)) for one in good] == [1] * 5


def test_models_are_chosen_by_name(server: Served) -> None:
    found = first(server.post(photo(2), "?model=other&model=colours&model=other"))
    assert [one["model"] for one in found["answers"]] == ["other", "colours"]
    assert [classes(found, number)[0][0] for number in (0, 1)] == ["blau", CLASSES[2]]
    assert [one["model"] for one in first(server.post(photo(2)))["answers"]] == ["colours"], "the first if none"
    described = requests.get(f"{server.url}/models", timeout=60).json()
    assert [one["name"] for one in described] == ["colours", "other"]
    assert described[0]["classes"] == CLASSES and described[0]["height"] == 32 and not described[0]["cropped"]


def test_probabilities_can_be_calibrated(server: Served, model: Path) -> None:
    data = photo(0)
    found = classes(first(server.post(data, "?calibrated=true")))
    assert found == rounded(Predictor(model).predict(data, calibrated=True))
    assert found[0][1] < classes(first(server.post(data)))[0][1]


def test_where_the_model_looked_is_what_the_exported_model_says(server: Served, model: Path) -> None:
    pixels = np.full((32, 32, 3), 60, np.uint8)
    pixels[:12, 20:, 0] = 255  # red in a corner
    data = bytes(cv2.imencode(".png", pixels[..., ::-1])[1])
    look = first(server.post(data, "?look=true"))["answers"][0]["look"]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(look["picture"].partition(",")[2]), np.uint8), 1)
    assert shown is not None and np.array_equal(shown[..., ::-1], pixels)
    predictor = Predictor(model)
    expected = occlusion_map(lambda images: predictor.probabilities([*images]), pixels)
    np.testing.assert_allclose(look["map"], expected, atol=1e-4)
    assert divmod(int(np.argmax(look["map"])), 7) == (1, 5), "the corner speaks for the class"


def test_what_describes_the_server(server: Served) -> None:
    assert requests.get(f"{server.url}/healthz", timeout=60).json() == {"status": "ok", "models": 2, "addresses": True}
    before = figures(server)
    server.post(photo(0))
    server.post(b"nothing")
    requests.get(f"{server.url}/no/such/path", timeout=60)
    after = figures(server)
    for name in ('requests_total{path="/predict",status="200"}', 'requests_total{path="/predict",status="415"}',
                 'requests_total{path="other",status="404"}', 'photos_total{status="200"}',
                 'predictions_total{model="colours"}'):  # fmt: skip
        assert after[f"temper_{name}"] == before.get(f"temper_{name}", 0) + 1, name
    described = requests.get(f"{server.url}/openapi.json", timeout=60).json()["paths"]["/predict"]["post"]
    assert {"200", "400", "401", "403", "404", "408", "413", "415", "422", "502", "503", "504"} <= set(
        described["responses"]
    )
    example = described["requestBody"]["content"]["application/json"]["example"]
    assert example["photos"] and "image/*" in described["requestBody"]["content"]


def figures(server: Served) -> dict[str, float]:
    lines = requests.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_page_about_serving(server: Served, tmp_path: Path) -> None:
    page = (ROOT / "docs/serve.md").read_text(encoding="utf-8")
    (tmp_path / "photo.jpg").write_bytes(photo(0))
    (tmp_path / "other.jpg").write_bytes(photo(1))
    (tmp_path / "README.md").write_text("# Temper", encoding="utf-8")
    said = []
    for block in re.findall(r"^```sh\n(curl .*?)^```$", page, re.M | re.S):
        command = block.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        done = subprocess.run(["bash", "-ec", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        said.append(json.loads(done.stdout))
    shown = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", page, re.M | re.S)]
    assert shown[1] == said[3], "the refusal, word for word"
    assert shape(shown[0]) == shape(said[0])
    assert [one["name"] for one in said[1]["photos"]] == ["photo.jpg", "other.jpg"]
    assert [classes(one)[0][0] for one in said[1]["photos"]] == CLASSES[:2]
    assert said[2]["photos"][0]["name"] == "a rose"


def shape(value: Any) -> Any:
    """Keys and types without the values."""
    if isinstance(value, dict):
        return {key: shape(inside) for key, inside in value.items()}
    return [shape(inside) for inside in value] if isinstance(value, list) else type(value)


# --- What a client may not do


def text_of(answer: requests.Response) -> str:
    """The one sentence of a refusal, without anything of the server's inside."""
    sentence: str = answer.json()["error"]
    assert sentence and "\n" not in sentence and not TRACE.search(sentence), sentence
    return sentence


JPEG = photo(0)
PNG = photo(0, 0, ".png")
FORM = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n'
REFUSED = [  # body, query, type, status, what the sentence says
    (PNG[: len(PNG) // 2], "", "", 422, "truncated or corrupt PNG"),
    (b"GIF89a", "", "", 422, "truncated or corrupt GIF"),
    (b"plain text", "", "text/plain", 415, "no image format"),
    (JPEG + b"\xff\xda\0\0" * 100, "", "", 422, "scans"),
    (BOMB, "", "", 413, "at most 50 megapixels, received 30,000 x 30,000 pixels"),
    (b"\0" * 20_000_001, "", "", 413, "at most 20 megabytes"),
    (JPEG, "?model=COLOURS", "", 404, "colours, other"),
    (JPEG, "?look=perhaps", "", 400, "look"),
    (b'{"photos": [{"base64": "AAAA"}]}', "?look=1", "application/json", 415, "no image format"),
    (b'{"photos": [{"base64": "AAAA", "address": "x"}]}', "", "application/json", 400, "other keys"),
    (b'{"photos": [{"base64": 3}]}', "", "application/json", 400, "no text"),
    (b"[" + b"[]," * 10_000, "", "application/json", 400, "too many values"),
    (b'{"photos": "abc"}', "", "application/json", 400, "other JSON"),
    (FORM + JPEG, "", "multipart/form-data; boundary=x", 400, "with its last boundary"),
    (b'{"photos": [{"address": "ftp://example.org/"}]}', "", "application/json", 400, "http://"),
    (b'{"photos": [{"address": "http://[::1"}]}', "", "application/json", 400, "http://"),
    (b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--\r\n", "", "multipart/form-data; boundary=x",
     400, "only files"),
    *[(body, query, kind, status, "") for body, query, kind, status in NONSENSE if b"127.0.0.1" not in body],
]  # fmt: skip


@pytest.mark.parametrize(("body", "query", "kind", "status", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(server: Served, body: bytes, query: str, kind: str, status: int, words: str) -> None:
    answer = server.post(body, query, kind or "image/jpeg")
    assert answer.status_code == status, answer.text
    assert words in text_of(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("get", "/predict", 405), ("post", "/models", 405), ("get", "/../../etc/passwd", 404)],
)
def test_paths_and_methods_that_are_not_there(server: Served, method: str, path: str, status: int) -> None:
    answer = requests.request(method, server.url + path, timeout=60)
    assert answer.status_code == status and text_of(answer)


@pytest.mark.parametrize(
    ("page", "status", "words"),
    [
        ("/none.jpg", 502, "HTTP 404"),
        ("/long", 413, "at most 20 megabytes"),
        ("/to/ftp://example.org", 400, "http://"),
        ("/to/" * 7 + "/photo.jpg", 502, "redirects"),
    ],
)
def test_addresses_that_give_no_photo(server: Served, site: str, page: str, status: int, words: str) -> None:
    answer = requests.post(f"{server.url}/predict", json={"photos": [{"address": site + page}]}, timeout=60)
    assert answer.status_code == status and words in text_of(answer)


def test_a_bomb_is_refused_in_no_time_and_no_memory(model: Path, tmp_path: Path) -> None:
    with served([model], tmp_path / "log") as server:
        server.post(photo(0))
        before, seconds = server.memory("VmHWM"), []
        for _ in range(7):
            begun = time.monotonic()
            assert server.post(BOMB).status_code == 413
            seconds.append(time.monotonic() - begun)
        assert statistics.median(seconds) < 0.05 and server.memory("VmHWM") - before < 50


LABOURS = {  # bodies of 19 MB that are much work for those who read them naively
    "comments in a PNM": (b"P6 " + b"#\n" * 9_500_000, "image/jpeg"),
    "markers in a JPEG": (b"\xff\xd8\xff" + b"\xff\x01" * 9_500_000, "image/jpeg"),
    "nothing in a TIFF": (b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 19_000_000, "image/jpeg"),
    "boxes in an AVIF": (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1" + b"\0\0\0\x0cmeta\0\0\0\0" * 1_500_000, "image/jpeg"),
    "newlines in a form": (FORM + b"\r\n" * 9_500_000 + b"--x--\r\n", "multipart/form-data; boundary=x"),
    "a number in JSON": (b'{"photos": ' + b"9" * 19_000_000 + b"}", "application/json"),
    "escapes in JSON": (b'{"photos": [{"base64": "' + b"\\u0041" * 3_000_000 + b'"}]}', "application/json"),
}


def test_what_is_much_work_to_read_does_not_hold_up_others(model: Path, tmp_path: Path) -> None:
    with served([model], tmp_path / "log") as server, ThreadPoolExecutor(1) as pool:
        server.post(photo(0))
        before, ended = server.memory("VmHWM"), threading.Event()

        def longest() -> float:
            found = 0.0
            with requests.Session() as session:
                while not ended.is_set():
                    begun = time.monotonic()
                    assert session.get(f"{server.url}/healthz", timeout=60).status_code == 200
                    found = max(found, time.monotonic() - begun)
                    time.sleep(0.01)
            return found

        waiting = pool.submit(longest)
        for name, (body, kind) in LABOURS.items():
            assert server.post(body, kind=kind).status_code in (400, 415, 422), name
        ended.set()
        assert waiting.result() < 2.5 and server.memory("VmHWM") - before < 300


@pytest.fixture
def strict(model: Path, tmp_path: Path) -> Iterator[Served]:
    """A server with small limits."""
    limits = ["--seconds", "1", "--photos", "2", "--megapixels", "0.1", "--requests", "1", "--connections", "20"]
    with served([model], tmp_path / "log", *limits, "--megabytes", "0.2", token="a secret token") as running:
        yield running


TOKEN = {"Authorization": "Bearer a secret token"}


def test_limits_can_be_smaller(strict: Served) -> None:
    for data, status, words in (
        (photo(0, side=400), 413, "0.1 megapixels"),
        (b"\0" * 300_000, 413, "0.2 megabytes"),
        (photo(0, side=300), 200, ""),
    ):
        answer = strict.post(data, headers=TOKEN)
        assert answer.status_code == status and words in answer.text
    files = [("photo", ("p", photo(0)))] * 3
    answer = requests.post(f"{strict.url}/predict", files=files, headers=TOKEN, timeout=60)
    assert answer.status_code == 413 and "at most 2 photos" in text_of(answer)
    answer = requests.post(f"{strict.url}/predict", json={"photos": [{"address": "x"}]}, headers=TOKEN, timeout=60)
    assert answer.status_code == 403 and "--addresses" in text_of(answer)


def test_a_token_is_needed_for_all_but_the_page_and_health(strict: Served) -> None:
    for path, status in (("/", 200), ("/style.css", 200), ("/healthz", 200), ("/models", 401), ("/metrics", 401)):
        answer = requests.get(strict.url + path, timeout=60)
        assert answer.status_code == status, path
    for wrong in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer another"}, {"Authorization": "b\u00fc"}):
        headers = {name: value.encode("latin-1") for name, value in wrong.items()}
        answer = strict.post(photo(0), headers=headers)
        assert answer.status_code == 401 and "token" in text_of(answer) and "secret" not in answer.text
    assert requests.get(f"{strict.url}/models", headers=TOKEN, timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", b""),
        (b"POST /predict HT", b""),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nA: ", b""),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 9\r\n\r\nabc", b"408"),
    ],
)
def test_a_client_that_is_too_slow_is_left(strict: Served, sent: bytes, answered: bytes) -> None:
    with socket.create_connection(("127.0.0.1", strict.port)) as line:
        line.settimeout(20)
        token = f"Authorization: {TOKEN['Authorization']}".encode()
        line.sendall(sent.replace(b"%s", token))
        begun = time.monotonic()
        said = line.recv(1000)
        assert 0.5 < time.monotonic() - begun < 10
        assert answered in said if answered else said == b""


def test_slow_clients_keep_nobody_out(strict: Served) -> None:
    """More connections than are allowed, which say nothing: they are closed, and others get their turn."""
    lines = [socket.create_connection(("127.0.0.1", strict.port)) for _ in range(30)]
    assert requests.get(f"{strict.url}/healthz", timeout=60).status_code == 503
    deadline = time.monotonic() + 20
    while requests.get(f"{strict.url}/healthz", timeout=60).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for line in lines:
        line.close()


def test_a_server_with_too_much_to_do_says_when_to_come_back(model: Path, tmp_path: Path) -> None:
    with served([model], tmp_path / "log", "--requests", "1") as server, ThreadPoolExecutor(12) as pool:
        answers = [*pool.map(lambda _: server.post(photo(0, side=250), "?look=1"), range(12))]
        assert {answer.status_code for answer in answers} == {200, 503}
        for answer in answers:
            assert answer.status_code == 200 or (answer.headers["Retry-After"] == "1" and text_of(answer))
        assert server.post(photo(0)).status_code == 200


# --- Models that are replaced


def replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)


def test_a_replaced_model_is_taken_up_without_dropping_a_request(model: Path, other: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(model, tmp_path / "m.tflite"))
    contents, names = [model.read_bytes(), other.read_bytes()], [CLASSES[0], "rot"]
    with served([path], tmp_path / "log") as server, ThreadPoolExecutor(3) as pool:
        ended, seen = threading.Event(), set()

        def ask() -> int:
            count = 0
            with requests.Session() as session:
                while not ended.is_set():
                    answer = session.post(f"{server.url}/predict", data=JPEG, timeout=60)
                    seen.add(classes(first(answer))[0][0])
                    count += 1
            return count

        asking = [pool.submit(ask) for _ in range(3)]
        for turn in range(1, 4):
            if turn == 2:
                path.write_bytes(contents[0])  # in place, over the file that is open
            else:
                replace(path, contents[turn % 2])
            deadline = time.monotonic() + 20
            while classes(first(server.post(JPEG)))[0][0] != names[turn % 2]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        ended.set()
        assert sum(one.result() for one in asking) > 20 and seen == set(names)
        assert server.said().count("replaced, now version") == 3
        assert figures(server)['temper_model_replacements_total{model="m",taken_up="true"}'] == 3


def test_a_model_that_is_written_slowly_is_taken_up_when_it_is_whole(model: Path, other: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(model, tmp_path / "m.tflite"))
    content = other.read_bytes()
    with served([path], tmp_path / "log") as server:
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(content), len(content) // 12):
                file.write(content[start : start + len(content) // 12])
                time.sleep(0.2)
        server.wait_for("replaced, now version")
        assert "goes on" not in server.said()
        assert classes(first(server.post(JPEG)))[0][0] == "rot"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) // 2],
    "no card": lambda content: content[: content.index(b"PK\x03\x04")],
    "no model": lambda content: b"\0" * 64 + content[content.index(b"PK\x03\x04") :],
    "empty": lambda content: b"",
}


def test_a_damaged_replacement_leaves_the_old_model(model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(model, tmp_path / "m.tflite"))
    with served([path], tmp_path / "log") as server:
        for number, (name, damage) in enumerate(DAMAGES.items(), 1):
            path.write_bytes(damage(model.read_bytes()))  # in place: the server must not have it mapped
            deadline = time.monotonic() + 20
            while server.said().count("goes on") < number:
                assert time.monotonic() < deadline, name
                time.sleep(0.05)
            assert classes(first(server.post(JPEG)))[0][0] == CLASSES[0], name
        time.sleep(1.2)
        lines = [line for line in server.said().splitlines() if "goes on" in line]
        assert len(lines) == len(DAMAGES) and all(line.startswith(str(path)) for line in lines), "each is said once"
        path.unlink()
        server.wait_for("No such file")
        assert classes(first(server.post(JPEG)))[0][0] == CLASSES[0]
        replace(path, model.read_bytes())
        server.wait_for("replaced, now version")
        assert "Traceback" not in server.said()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "expected one or more models"),
        (["none.tflite"], "none.tflite: No such file"),
        (["cut.tflite"], "cut.tflite: expected a model of this pipeline"),
        (["a/m.tflite", "b/m.tflite"], "different names"),
        (["a/m.tflite", "--seconds", "0"], "--seconds: expected a number above 0"),
    ],
)
def test_what_cannot_be_served_ends_in_one_line(model: Path, tmp_path: Path, given: list[str], words: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(model, tmp_path / name / "m.tflite")
    (tmp_path / "cut.tflite").write_bytes(model.read_bytes()[:1000])
    command = [str(PYTHON), "-m", "apps.serve", "--models", *given]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- Models that were trained on crops


@pytest.fixture
def cropped(model: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A classifier of what a toy detector finds, and the options that name the detector."""
    weights = write_toy_detector(tmp_path / "toy.onnx", [("car", 0.9, (16.0, 16.0, 30.0, 30.0))])
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    path = tmp_path / "cropped.tflite"
    content = model.read_bytes()
    path.write_bytes(content[: content.index(b"PK\x03\x04")])
    append_card(path, CLASSES, crop=Crop(detector="yolox", sha256=sha256, margin=0.1, box={"min_box": 8}))
    return path, ["--detector-weights", str(weights), "--detector-input", str(SIDE), "--detector-classes", "car,bus"]


def two_colours() -> bytes:
    """A red photo, whose main object is green."""
    pixels = np.random.default_rng(0).integers(0, 60, (120, 150, 3), np.uint8)
    pixels[..., 0] += 190
    pixels[55:120, 60:150] = pixels[55:120, 60:150][..., [1, 0, 2]]
    return bytes(cv2.imencode(".png", pixels[..., ::-1])[1])


def test_a_crop_model_sees_what_it_would_see_in_the_pipeline(cropped: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Server, function and `apps.predict` crop photos alike; with --whole, all see the whole photo."""
    path, options = cropped
    named = argparse.ArgumentParser()
    detector_arguments.add_to(named)
    choice = detector_arguments.choice(named.parse_args(options))
    models = inference.Models([str(path)], lambda name, crop: MainObjectFinder(name, crop, choice))
    data = two_colours()
    encoded = [Encoded(NamedPhoto("a", "a"), data), Encoded(NamedPhoto("b", "b"), photo(2, side=90))]
    of_all = [one.of_models for one in inference.answers(models, encoded, threads=1)]
    with served([path], tmp_path / "log", *options) as server:
        for one, found in zip(encoded, of_all, strict=True):
            assert found is not None
            guesses = dict(classes(first(server.post(one.data))))
            assert [guesses[name] for name in CLASSES] == [round(float(value), 6) for value in found[0]]
        assert classes(first(server.post(data)))[0][0] == "green"
        (described,) = requests.get(f"{server.url}/models", timeout=60).json()
        assert (described["crops"], described["cropped"]) == (True, False)
        assert first(server.post(data, "?look=1"))["answers"][0]["look"]
        said = server.post(data).text
    if has_lambda():
        with running(tmp_path / "function", " ".join(["--models", str(path), *options])) as function:
            assert function.invoke(event_2(data))["body"] == said
    with served([path], tmp_path / "log", "--whole") as server:
        assert classes(first(server.post(data)))[0][0] == "red"
        (described,) = requests.get(f"{server.url}/models", timeout=60).json()
        assert (described["crops"], described["cropped"]) == (False, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "which are not here: name their file by --detector-weights"),
        (["--detector-weights", "cropped.tflite"], "name the right file by --detector-weights"),
        (["--detector-weights", "none.onnx"], "expected the weights of a detector"),
    ],
)
def test_a_crop_model_without_its_detector_is_refused(
    cropped: tuple[Path, list[str]], tmp_path: Path, options: list[str], words: str
) -> None:
    command = [str(PYTHON), "-m", "apps.serve", "--models", str(cropped[0]), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


# --- The end


def test_sigterm_finishes_what_was_begun(model: Path, tmp_path: Path) -> None:
    with served([model], tmp_path / "log") as server:
        assert len([*tmp_path.glob("temper-serve-*")]) == 1
        data = photo(2)
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:100])
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", server.port)).recv(1)
            line.sendall(data[100:])
            line.settimeout(20)
            said = b""
            while block := line.recv(10_000):
                said += block
        assert b" 200 " in said.splitlines()[0]
        assert json.loads(said.partition(b"\r\n\r\n")[2])["photos"][0]["answers"][0]["classes"][0]["name"] == CLASSES[2]
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.said() and not [*tmp_path.glob("temper-serve-*")]


def test_a_killed_server_leaves_no_decoder_and_no_copies(model: Path, tmp_path: Path) -> None:
    with served([model], tmp_path / "log") as server:
        server.post(photo(0))
        children = server.decoders()
        assert children
        (left,) = tmp_path.glob("temper-serve-*")
        server.process.kill()
        server.process.wait()
    with served([model], tmp_path / "log") as server, served([model], tmp_path / "other") as second:
        assert not left.exists(), "the next server removes the copies of one that was killed"
        assert len([*tmp_path.glob("temper-serve-*")]) == 2 and second.post(photo(0)).status_code == 200
        assert server.post(photo(0)).status_code == 200
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- Many requests


def check(outcome: Any, server: Served) -> None:
    assert outcome.wrong == []
    assert "Traceback" not in server.said()
    assert not any(status >= 500 for _, status in outcome.statuses)


def test_a_short_soak(model: Path, tmp_path: Path) -> None:
    with served([model], tmp_path / "log") as server:
        outcome = soak(server, 400)
        check(outcome, server)
        assert {status for _, status in outcome.statuses} >= {0, 200, 400, 403, 404, 413, 415, 422}
        assert len(PHOTOS) == 18 and server.end() == 0


@pytest.mark.slow
def test_a_long_soak(model: Path, tmp_path: Path) -> None:
    """10,000 good and bad requests: no status 500, every good photo answered right, no growth of memory."""
    with served([model], tmp_path / "log") as server:
        outcome = soak(server, 10_000)
        check(outcome, server)
        assert outcome.memory[-1] - outcome.memory[3] < 20, outcome.memory
        assert server.end() == 0
