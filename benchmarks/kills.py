"""A soak test: runs that are killed at random moments and started again must end with bit-identical results.

    python -m benchmarks.kills [--runs 50] [--seed 0] [--keep FOLDER]

It uses the digits with few epochs, in a clone of this repository in a temporary folder. Each run is a complete one,
from empty `data` and `models` or forced over existing ones. At a random moment, which may be during imports, `dvc` or
the running stage gets SIGKILL, SIGTERM or SIGINT. Then `dvc repro` runs to the end without DVC's run cache; every third
time, a complete run with a changed param comes before it. Expected: every run ends with the same bits as an undisturbed
run, no process of the killed run lives 2 seconds longer than its `dvc`, Ctrl-C and SIGTERM cause no traceback, and no
incomplete file, lock or temporary file is left. Prints a line for each run and a summary; the exit code is 1 if a run
ended otherwise.

Two things are counted but do not fail a run. DVC does not write dvc.lock atomically: if `dvc` is killed at that moment,
half of the file is left, which DVC refuses; it is removed, as docs/training.md says. And if DVC restores the output of
the killed stage from its cache, that stage does not run, and its unfinished state stays until it does; a forced run
follows, after which nothing may be left.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.toys import workspace

LITTLE = {"warm_up__epochs": 4, "fine_tune__epochs": 4}
CHANGES: list[dict[str, Any]] = [{"lr": 0.001}, {"warm_up__lr": 0.01}, {"seed": 1}, {"image_size": 24}]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOST = 600  # seconds that a run may take
ORPHANS = 2  # seconds in which what a killed dvc started must have ended


@dataclass(frozen=True)
class Kill:
    """How a run is disturbed."""

    signal: signal.Signals
    of_stage: bool
    after: float  # seconds
    forced: bool  # over the outputs of the run before; else all outputs are removed first
    change: dict[str, Any] | None  # of a run to the end before the rerun

    def __str__(self) -> str:
        start = "forced" if self.forced else "from nothing"
        change = f", then a run with {self.change}" if self.change else ""
        whom = "stage" if self.of_stage else "dvc"
        return f"{self.signal.name} of {whom} after {self.after:.2f} s of a run {start}{change}"


class Soak:
    """A clone of the repository in which runs are killed.

    Attributes:
        bits: the md5 of each output after the undisturbed run, by its path.
        seconds: how long that run took.
    """

    def __init__(self, home: Path) -> None:
        self.folder, self._temporary = home / "clone", home / "tmp"
        self._temporary.mkdir()
        os.environ |= {"DVC_SITE_CACHE_DIR": str(home / "dvc"), "TMPDIR": str(self._temporary)}
        workspace.make(self.folder, "digits", **LITTLE)
        self._params = (self.folder / "params.yaml").read_text(encoding="utf-8")
        workspace.run(self.folder, "dvc repro")
        self.seconds = workspace.run(self.folder, "dvc repro --force")
        self.bits = self.outputs()

    def outputs(self) -> dict[str, str]:
        """The md5 of each output in dvc.lock, by its path."""
        stages = yaml.safe_load((self.folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def disturb(self, kill: Kill) -> tuple[str, list[str]]:
        """Runs the pipeline, kills it, and runs it again to the end.

        Returns:
            What was killed, and what is wrong at the end.
        """
        if not kill.forced:
            for name in ("data/raw", "data/packed", "data/embeddings", "models", "metrics", "dvc.lock"):
                path = self.folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        hit, problems = self._kill(kill)
        problems += self._orphans()
        if self._lock_is_cut_off():
            (self.folder / "dvc.lock").unlink()
            hit += ", which was writing dvc.lock"
        if kill.change:
            changed = yaml.safe_load(self._params)
            workspace.change(changed, kill.change)
            self._set(yaml.safe_dump(changed, sort_keys=False))
            problems += self._finish("dvc repro")
            self._set(self._params)
        problems += self._finish("dvc repro --no-run-cache")
        found = self.outputs()
        problems += [f"{path}: other bits" for path in sorted(self.bits) if found.get(path) != self.bits[path]]
        if self._leftovers():
            problems += self._finish("dvc repro --force")
            hit += ", whose stage was restored and not run"
        return hit, problems + self._leftovers()

    def _lock_is_cut_off(self) -> bool:
        """Whether dvc.lock is there, but only its beginning."""
        try:
            self.outputs()
        except FileNotFoundError:
            return False
        except (yaml.YAMLError, KeyError, TypeError):
            return True
        return False

    def _set(self, params: str) -> None:
        (self.folder / "params.yaml").write_text(params, encoding="utf-8")

    def _start(self, command: str) -> "subprocess.Popen[str]":
        with (self.folder / "log.txt").open("w", encoding="utf-8") as log:
            return subprocess.Popen(
                [Path(sys.executable).parent / "dvc", *command.split()[1:]],
                cwd=self.folder,
                env=workspace.environment(),
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, kill: Kill) -> tuple[str, list[str]]:
        """Starts a run and sends it the signal."""
        process = self._start("dvc repro --force --no-run-cache" if kill.forced else "dvc repro --no-run-cache")
        time.sleep(kill.after)
        stages = [pid for pid, command in self._processes() if "stages." in command and pid != process.pid]
        target = stages[0] if kill.of_stage and stages else process.pid
        hit = (
            self._stage_of(target) if target != process.pid else f"dvc, in {self._stage_of(*stages[:1]) or 'no stage'}"
        )
        try:
            os.kill(target, kill.signal)
        except ProcessLookupError:
            hit = "nothing, it had ended"
        try:
            process.wait(MOST)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return hit, [f"hung for {MOST} s"]
        log = (self.folder / "log.txt").read_text(encoding="utf-8")
        return hit, [f"a traceback: {log}"] if "Traceback" in log and target != process.pid else []

    def _finish(self, command: str) -> list[str]:
        process = self._start(command)
        code = process.wait(MOST)
        return [f"{command}: {code}: {(self.folder / 'log.txt').read_text(encoding='utf-8')}"] if code else []

    def _processes(self) -> list[tuple[int, str]]:
        """The processes that work in the clone or name it: their numbers and commands."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.folder) in f"{(process / 'cwd').readlink()} {command}":
                    found.append((int(process.name), command))
            except OSError:  # it has ended
                continue
        return [(pid, command) for pid, command in found if pid != os.getpid() and command]

    def _stage_of(self, *pids: int) -> str:
        """The stage that the first of these processes that runs one runs."""
        for pid in pids:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                return next(word for word in words if word.startswith("stages."))
            except (OSError, StopIteration):
                continue
        return ""

    def _orphans(self) -> list[str]:
        """What lives on after the `dvc` that started it has ended."""
        deadline = time.monotonic() + ORPHANS
        while self._processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"an orphan: {command}" for _, command in self._processes()]

    def _leftovers(self) -> list[str]:
        """What a run should not leave."""
        found = [path for path in self.folder.rglob(".partial-*") if ".dvc" not in path.parts]
        for place in (".temper/unfinished", ".temper/locks", ".temper/messages"):
            found += (self.folder / place).glob("*")
        found += (self.folder / ".dvc/cache").rglob("*.tmp")
        found += self._temporary.glob("*")
        names = [f"left: {path.relative_to(self.folder.parent)}" for path in found]
        return names + self._locked_paths()

    def _locked_paths(self) -> list[str]:
        """What DVC still holds: for writing, or by a living process.

        A killed reader stays in DVC's list until it would be in the way, and is then removed by DVC: it blocks nobody.
        """
        rwlock = self.folder / ".dvc/tmp/rwlock"
        held = json.loads((rwlock.exists() and rwlock.read_text(encoding="utf-8")) or "{}")
        found = [f"left in .dvc/tmp/rwlock: {path}" for path in held.get("write", {})]
        for path, readers in held.get("read", {}).items():
            found += [f"read by {one['pid']}: {path}" for one in readers if Path(f"/proc/{one['pid']}").exists()]
        return found


def choose(number: int, seconds: float, chance: random.Random) -> Kill:
    """What is done to a run, by its number from 0."""
    return Kill(
        signal=chance.choice(SIGNALS),
        of_stage=chance.random() < 0.5,
        after=chance.uniform(0, seconds),
        forced=chance.random() < 0.5,
        change=chance.choice(CHANGES) if number % 3 == 2 else None,
    )


def main(runs: int, seed: int, home: Path) -> int:
    chance, counts, failed = random.Random(seed), Counter[str](), 0
    soak = Soak(home)
    print(f"undisturbed: {soak.seconds:.0f} s, {len(soak.bits)} outputs", flush=True)
    for number in range(runs):
        kill = choose(number, soak.seconds, chance)
        hit, problems = soak.disturb(kill)
        counts[f"{kill.signal.name} of {'dvc' if hit.startswith('dvc') else 'a stage'}"] += 1
        failed += bool(problems)
        print(f"{number + 1}: {kill}; hit {hit}: {'; '.join(problems) or 'the same bits, nothing left'}", flush=True)
    print(f"{runs - failed} of {runs} as expected; " + ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for the clone, which is kept; default: a temporary one"
    )
    chosen = parser.parse_args()
    if chosen.keep:
        chosen.keep.mkdir(parents=True)
        sys.exit(main(chosen.runs, chosen.seed, chosen.keep.resolve()))
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(chosen.runs, chosen.seed, Path(name).resolve()))
