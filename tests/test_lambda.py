"""The function for AWS Lambda, run by Amazon's own `awslambdaric` against a small runtime API: the server's answers."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests

from tests.toys.colours import CLASSES, photo, write_colours
from tests.toys.lambda_runtime import Runtime, event_1, event_2, require_lambda, running
from tests.toys.served import Served, served
from tests.toys.soak import BOMB


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported classifier; leave it as it is."""
    require_lambda()
    return write_colours(tmp_path_factory.mktemp("model") / "colours.tflite")


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The server, to compare with."""
    with served([model], tmp_path_factory.mktemp("server") / "log") as serving:
        yield serving


@pytest.fixture(scope="module")
def function(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    """The function with the same model; tests leave it as it is."""
    log = tmp_path_factory.mktemp("function") / "log"
    with running(log, f"--models {model}") as runs:
        yield runs
        assert runs.said() == ""


def json_of(*photos: dict[str, str]) -> str:
    return json.dumps({"photos": photos})


def form(*photos: bytes) -> bytes:
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="%d"\r\n\r\n%s\r\n' % (number, data)
        for number, data in enumerate(photos)
    ]
    return b"".join(parts) + b"--x--\r\n"


JPEG = photo(0)
PNG = photo(0, 0, ".png")
IN_JSON = json_of({"base64": base64.b64encode(JPEG).decode(), "name": "rot <b> \u00e4"}, {"base64": "AAAA"})
ASKED: list[tuple[bytes | str, str, str, int]] = [  # body, query, type, status
    (JPEG, "", "image/jpeg", 200),
    (PNG, "top=2&calibrated=true&model=colours", "", 200),
    (photo(2, 5, ".webp"), "look=1", "image/webp", 200),
    (form(JPEG, b"nothing", PNG), "top=1", "multipart/form-data; boundary=x", 200),
    (IN_JSON, "", "application/json", 200),
    (IN_JSON.encode(), "", "application/json; charset=utf-8", 200),
    (b"", "", "image/jpeg", 400),
    ("", "", "", 400),
    (JPEG, "top=0", "", 400),
    (JPEG, "top=many", "", 400),
    (JPEG, "look=perhaps", "", 400),
    (JPEG, "model=none&model=colours", "", 404),
    (form(JPEG, PNG), "look=true", "multipart/form-data; boundary=x", 400),
    (form(*[b"a"] * 17), "", "multipart/form-data; boundary=x", 413),
    (form(JPEG)[:-9], "", "multipart/form-data; boundary=x", 400),
    ("no JSON", "", "application/json", 400),
    (json_of({"base64": "a"}), "", "application/json", 400),
    (json_of({"address": "http://127.0.0.1/photo.jpg"}), "", "application/json", 403),
    (BOMB, "", "image/png", 413),
    (b"\0" * 20_000_001, "", "image/png", 413),
    (PNG[: len(PNG) // 2], "", "", 422),
    (b"GIF89a", "", "", 422),
    (b"plain text", "", "text/plain", 415),
    (JPEG + b"\xff\xda\0\0" * 100, "", "", 422),
]


@pytest.mark.parametrize(("body", "query", "kind", "status"), ASKED, ids=range(len(ASKED)))
def test_the_function_answers_as_the_server_does(
    function: Runtime, server: Served, body: bytes | str, query: str, kind: str, status: int
) -> None:
    expected = server.post(body.encode() if isinstance(body, str) else body, f"?{query}", kind)
    assert expected.status_code == status, expected.text
    told = {"Content_Type": kind} if kind else {}
    for event in (
        event_1(body, query=parse_qs(query), **told),
        event_2(body, query=parse_qs(query), stage="prod", **told),
    ):
        found = function.invoke(event)
        assert (found["statusCode"], found["body"]) == (status, expected.text)
        for name in ("Content-Type", "X-Content-Type-Options", "Cache-Control", "Content-Security-Policy"):
            assert found["headers"][name] == expected.headers[name]


@pytest.mark.parametrize("path", ["/models", "/healthz", "/predict", "/", "/prod/models"])
def test_other_paths_are_the_servers_but_for_the_page(function: Runtime, server: Served, path: str) -> None:
    expected = requests.get(server.url + path, timeout=60) if path != "/" else None
    for event in (event_1(path=path, method="GET"), event_2(path=path, method="GET")):
        found = function.invoke(event)
        if expected is None:
            assert found["statusCode"] == 404 and "nothing at this path" in found["body"]
        else:
            assert (found["statusCode"], found["body"]) == (expected.status_code, expected.text)
    assert function.invoke(event_1(JPEG, path="/models"))["statusCode"] == 405


STRANGE: list[tuple[Any, str]] = [
    ({}, "event of API Gateway"),
    ([], "event of API Gateway"),
    ("text", "event of API Gateway"),
    ({"Records": [{"s3": {}}]}, "event of API Gateway"),
    ({"version": "2.0", "rawPath": "/predict"}, "event of API Gateway"),
    (event_2() | {"headers": ["a"]}, "event of API Gateway"),
    (event_2() | {"rawQueryString": "&".join(["a=b"] * 101)}, "event of API Gateway"),
    (event_1() | {"body": 3}, "at least one photo"),
    (event_1() | {"body": "*", "isBase64Encoded": True}, "base64"),
    (event_1(JPEG.decode("utf-8", "replace"), Content_Type="image/jpeg"), "binary media types"),
    (event_1("\ud800"), "expected a photo"),
]


@pytest.mark.parametrize(("event", "words"), STRANGE, ids=range(len(STRANGE)))
def test_other_events_get_one_sentence(function: Runtime, event: Any, words: str) -> None:
    found = function.invoke(event)
    assert found["statusCode"] in (400, 415) and words in json.loads(found["body"])["error"]
    assert function.invoke(event_2(JPEG))["statusCode"] == 200, "and the next one is answered"


def test_limits_a_token_and_too_little_time(model: Path, tmp_path: Path) -> None:
    options = f"--models {model} --megabytes 0.2 --megapixels 0.1 --photos 1"
    with running(tmp_path / "log", options, TEMPER_TOKEN="a secret token") as function:
        right = {"Authorization": "Bearer a secret token"}
        for wrong in ({}, {"Authorization": "Bearer another"}, {"authorization": "b\u00fc"}):
            found = function.invoke(event_2(JPEG) | {"headers": wrong})
            assert found["statusCode"] == 401 and "secret" not in found["body"]
            assert found["headers"]["WWW-Authenticate"] == "Bearer"
        assert function.invoke(event_1(path="/healthz", method="GET"))["statusCode"] == 200
        for data, status, words in (
            (photo(0, side=400), 413, "0.1 megapixels"),
            (b"\0" * 300_000, 413, "0.2 megabytes"),
            ("\u00e4" * 150_000, 413, "0.2 megabytes"),
            (photo(1, side=300), 200, CLASSES[1]),
        ):
            found = function.invoke(event_1(data) | {"headers": right})
            assert found["statusCode"] == status and words in found["body"]
        event = event_1(photo(1, side=300), query={"look": ["1"]}) | {"headers": right}
        found = function.invoke(event, seconds=0.501)
        assert found["statusCode"] == 504


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "one or more models"),
        ("--models none.tflite --port 3", "TEMPER_OPTIONS: expected options of the server, received others: --port 3"),
        ("--seconds none", "TEMPER_OPTIONS: expected options of the server"),
    ],
)
def test_a_function_that_cannot_start_says_so_in_one_line(tmp_path: Path, options: str, words: str) -> None:
    require_lambda()
    with running(tmp_path / "log", options) as function:
        assert function.process.wait(60) == 1
        assert function.said().startswith("error: ") and words in function.said()
        assert len(function.said().splitlines()) == 1


def test_amazons_own_command_runs_it_too(model: Path, tmp_path: Path) -> None:
    command = ("-m", "awslambdaric", "apps.serve.lambda_handler.handler")
    with running(tmp_path / "log", f"--models {model}", command) as function:
        assert function.invoke(event_2(JPEG))["statusCode"] == 200
    with running(tmp_path / "log", "--models none.tflite", command) as function:
        found = function.invoke(event_2(JPEG))
        assert found["statusCode"] == 500 and "its log says how" in found["body"]
        assert "error: none.tflite: no such file" in function.said() and "Traceback" not in function.said()


def test_the_function_starts_without_the_server(model: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from apps.serve import lambda_handler\n"
        "heavy = {'fastapi', 'starlette', 'uvicorn', 'aiohttp', 'prometheus_client', 'tqdm'}\n"
        "sys.stderr.write(' '.join(sorted(heavy & set(sys.modules)))); lambda_handler.main()"
    )
    with running(tmp_path / "log", f"--models {model}", ("-c", code)) as function:
        assert function.invoke(event_2(JPEG))["statusCode"] == 200
        assert function.said() == ""
        assert function.memory() < 130
