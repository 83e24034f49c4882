"""Measures the server of exported models under load: the cost of a request, and a soak of good and bad requests.

    python -m benchmarks.serve MODEL.tflite PHOTO... [--requests 500] [--soak 10000]
    python -m benchmarks.serve MODEL.tflite PHOTO... --against-keras MODEL.keras [--requests 500]

First it sends photos one after the other and from eight clients at the same time, and prints the milliseconds of wall
time and of processor time (of the server and its decoders), and beside them the cost of the model and of the
preparation of the photos alone, in this process. Then it sends a bomb (a PNG of 750 KB that decodes to 2.7 GB of
pixels), and runs the soak of tests/test_serve.py on a toy classifier.
With --against-keras, it compares the usual server with the same server and model as a `.keras` file in this
environment, in turn: processor time up to the first answer and of a request, and memory, decoders included.
Expected: a request costs less than twice the cost of its model and preparation alone plus three milliseconds; a bomb
costs less than 50 ms and 50 MB; a soak has no status 500 and no wrong answer, and memory grows by less than 20 MB after
its first third.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import requests

from temper.predictor import Predictor
from tests.toys.colours import write_colours
from tests.toys.served import PYTHON, Served, command_with, served
from tests.toys.soak import BOMB, soak


def in_words(seconds: Sequence[float]) -> str:
    """Median and 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return (
        f"{statistics.median(ordered) * 1000:.1f} ms (99 of 100 below {ordered[len(ordered) * 99 // 100] * 1000:.0f})"
    )


def alone(model: Path, photos: Sequence[bytes], count: int) -> None:
    cv2.setNumThreads(1)
    predictor = Predictor(model)
    predictor.predict(photos[0])
    begun = time.process_time()
    for number in range(count):
        predictor.predict(photos[number % len(photos)])
    print(f"the model and the preparation alone: {(time.process_time() - begun) / count * 1000:.1f} CPU ms a photo")


def load(server: Served, photos: Sequence[bytes], count: int, clients: int) -> None:
    """Prints what requests cost that are sent by so many clients at once."""

    def ask(number: int) -> list[float]:
        found = []
        with requests.Session() as session:
            for one in range(number, count, clients):
                begun = time.monotonic()
                answer = session.post(f"{server.url}/predict", data=photos[one % len(photos)], timeout=60)
                assert answer.status_code == 200, answer.text
                found.append(time.monotonic() - begun)
        return found

    ask(max(0, count - 4 * clients))
    before, begun = server.processor_seconds(), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        seconds = [one for found in pool.map(ask, range(clients)) for one in found]
    took, cpu = time.monotonic() - begun, server.processor_seconds() - before
    print(
        f"{clients} client{'s' * (clients > 1)}: {in_words(seconds)} a request, {count / took:.0f} a second, "
        f"{cpu / count * 1000:.1f} CPU ms each; {server.memory():.0f} MB",
        flush=True,
    )


def throw_a_bomb(server: Served) -> None:
    before, seconds = server.memory("VmHWM"), []
    for _ in range(20):
        begun = time.monotonic()
        assert server.post(BOMB).status_code == 413
        seconds.append(time.monotonic() - begun)
    print(f"a bomb: {in_words(seconds)}, {server.memory('VmHWM') - before:.0f} MB more memory at most")


def soak_it(server: Served, count: int) -> None:
    begun, cpu = time.monotonic(), server.processor_seconds()
    outcome = soak(server, count)
    by_status = Counter({0: 0})
    for (_, status), times in outcome.statuses.items():
        by_status[status] += times
    print(f"soak: {count} requests in {time.monotonic() - begun:.0f} s, {server.processor_seconds() - cpu:.0f} CPU s")
    print("  answers by status: " + ", ".join(f"{one or 'none'}: {times}" for one, times in sorted(by_status.items())))
    print(f"  good requests: {in_words(outcome.seconds)}; wrong answers: {len(outcome.wrong)}")
    print("  MB after each tenth: " + " ".join(f"{one:.0f}" for one in outcome.memory))
    assert not outcome.wrong, outcome.wrong[:10]


def turn(command: Sequence[str], model: Path, photos: Sequence[bytes], count: int, log: Path) -> list[float]:
    """Processor seconds to the first answer, those of a further request, and megabytes."""
    with served([model], log, start=command) as server:
        assert server.post(photos[0]).status_code == 200
        first = server.processor_seconds()
        with requests.Session() as session:
            for number in range(count + 50):
                if number == 50:
                    warm = server.processor_seconds()
                answer = session.post(f"{server.url}/predict", data=photos[number % len(photos)], timeout=60)
                assert answer.status_code == 200, answer.text
        own = server.memory_of(server.process.pid)
        return [first, (server.processor_seconds() - warm) / count, server.memory(), own]


def against_keras(model: Path, keras: Path, photos: Sequence[bytes], count: int, rounds: int) -> None:
    names = ("to the first answer, CPU s", "a request, CPU s", "memory, MB", "of it, of the server itself")
    found: dict[str, list[list[float]]] = {"LiteRT": [], "Keras": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            usual = [str(PYTHON), "-m", "apps.serve"]
            found["LiteRT"].append(turn(usual, model, photos, count, Path(folder) / "log"))
            found["Keras"].append(turn(command_with(Path(sys.executable)), keras, photos, count, Path(folder) / "log"))
    for number, name in enumerate(names):
        of = {runtime: [row[number] for row in rows] for runtime, rows in found.items()}
        ratio = statistics.median(of["Keras"]) / statistics.median(of["LiteRT"])
        said = [f"{one} {statistics.median(of[one]):.4g} ({min(of[one]):.4g} to {max(of[one]):.4g})" for one in of]
        print(f"{name}: {', '.join(said)}; {ratio:.1f} times")


def main(model: Path, photos: Sequence[Path], count: int, soaked: int) -> None:
    data = [path.read_bytes() for path in photos]
    alone(model, data, count)
    with tempfile.TemporaryDirectory() as folder:
        with served([model], Path(folder) / "log") as server:
            print(f"started in {server.processor_seconds():.1f} CPU s, {server.memory():.0f} MB")
            for clients in (1, 8):
                load(server, data, count, clients)
            throw_a_bomb(server)
        with served([write_colours(Path(folder) / "colours.tflite")], Path(folder) / "log") as server:
            soak_it(server, soaked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--soak", type=int, default=10_000)
    parser.add_argument("--against-keras", type=Path, metavar="MODEL.keras")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.against_keras:
        shown = [path.read_bytes() for path in arguments.photos]
        against_keras(arguments.model, arguments.against_keras, shown, arguments.requests, arguments.rounds)
    else:
        main(arguments.model, arguments.photos, arguments.requests, arguments.soak)
