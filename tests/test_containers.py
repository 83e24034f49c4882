"""The Dockerfiles: what each instruction says, and what comes of it, run in a clean folder with a clean environment."""

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
import requests

from tests.toys.colours import CLASSES, photo, write_colours
from tests.toys.containers import Image, build, is_sent, read
from tests.toys.lambda_runtime import event_2, running
from tests.toys.workspace import ROOT, copy_working_tree

FILES = {path.stem: path for path in sorted((ROOT / "containers").glob("*.Dockerfile"))}
KNOWN = {"FROM", "COPY", "RUN", "WORKDIR", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_there_is_one_for_each_app() -> None:
    assert set(FILES) == {"serve", "lambda", "evaluate"}


@pytest.mark.parametrize("name", FILES)
def test_an_image_is_slim_locked_and_not_roots(name: str) -> None:
    instructions = read(FILES[name])
    assert {one.name for one in instructions} <= KNOWN
    said = {one.name: one.rest for one in instructions}
    bases = [one.rest.partition(" ")[0] for one in instructions if one.name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases), "a tag, and no host before it"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"]), "by number, so that nobody has to be made"
    order = [one.name for one in instructions]
    assert "USER" not in order[: len(order) - 1 - order[::-1].index("RUN")] and order.index("USER") < len(order) - 2
    assert ("--timeout=" in said["HEALTHCHECK"]) == (name == "serve")
    assert isinstance(json.loads(said["ENTRYPOINT"]), list), "the exec form, which hands signals on"
    (install,) = [one.rest for one in instructions if "pip" in one.rest]
    assert "--require-hashes" in install and "--no-cache-dir" in install and "requirements-serve.lock" in install
    module = said["ENTRYPOINT"].split('"')[5].replace(".", "/")
    assert (ROOT / f"{module}.py").exists() or (ROOT / module / "__main__.py").exists()


def test_the_images_share_their_packages() -> None:
    """Equal first stages are built once."""
    first = {tuple(read(path)[:3]) for path in FILES.values()}
    assert len(first) == 1


@pytest.mark.parametrize(
    ("file", "sent"),
    [
        ("apps/serve/app.py", True),
        ("temper/card.py", True),
        ("requirements-serve.lock", True),
        ("models/export/classifier.tflite", True),
        ("models/fine_tune.keras", False),
        ("apps/__pycache__/x.pyc", False),
        ("data/photos/me.jpg", False),
        (".git/config", False),
        (".venv/bin/python", False),
        ("params.yaml", False),
    ],
)
def test_images_are_made_of_nothing_private(file: str, sent: bool) -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert is_sent(file, [line for line in lines if line and not line.startswith("#")]) == sent


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """All images, built in folders; the packages once."""
    context, folder = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("images")
    copy_working_tree(context)
    (context / "models/export").mkdir(parents=True, exist_ok=True)
    write_colours(context / "models/export/classifier.tflite")
    stages: dict[str, Image] = {}
    return {name: build(read(path), context, folder / name, stages) for name, path in FILES.items()}


def send(port: int) -> requests.Response:
    return requests.post(f"http://127.0.0.1:{port}/predict", data=photo(1), timeout=60)


def guessed(body: str) -> str:
    """The most probable class of the first photo."""
    name: str = json.loads(body)["photos"][0]["answers"][0]["classes"][0]["name"]
    return name


@pytest.mark.slow  # installs packages
def test_what_the_images_start_answers(images: dict[str, Image], tmp_path: Path) -> None:
    served = images["serve"]
    assert [path.name for path in sorted(served.folder.iterdir())] == ["apps", "models", "temper"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start, health = ([word.replace("8000", str(port)) for word in words] for words in (served.start, served.health))

    def is_well() -> bool:
        asked = subprocess.run(health, cwd=served.folder, env=served.told(), capture_output=True, check=False)
        return asked.returncode == 0

    assert not is_well(), "nothing runs yet"
    with subprocess.Popen(start, cwd=served.folder, env=served.told(), stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while not is_well():
                assert time.monotonic() < deadline and process.poll() is None
            assert guessed(send(port).text) == CLASSES[1]
        finally:
            process.terminate()
        assert process.wait(60) == 0
    function = images["lambda"]
    options = function.environment["TEMPER_OPTIONS"]
    with running(tmp_path / "log", options, function.start[1:], function.start[0], function.folder) as runs:
        assert guessed(runs.invoke(event_2(photo(1)))["body"]) == CLASSES[1]
    for label, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / name / f"{number}.jpg").write_bytes(photo(label, number))
    evaluate = images["evaluate"]
    command = [*evaluate.start[:-1], "--images", str(tmp_path / "photos"), "--metrics", "accuracy"]
    done = subprocess.run(command, cwd=evaluate.folder, env=evaluate.told(), capture_output=True, text=True, check=True)
    assert "1.0000" in done.stdout and done.stderr == ""
