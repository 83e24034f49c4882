"""Measures the start of an app: which modules it imports, and how much processor time it takes."""

import resource
import subprocess
import sys
from collections.abc import Sequence

from tests.toys.workspace import ROOT

HEAVY = ("keras", "tensorflow", "jax", "torch", "sklearn", "dvc")
RUNS = 3  # the fastest one counts, since others may use the machine


def start(app: str, arguments: Sequence[str]) -> tuple[float, str]:
    """Runs an app in a process of its own: its processor seconds, and output or imports that it should not have.

    The exit code must be 0.
    """
    code = (
        f"import sys; from apps import {app}; code = {app}.main(); "
        f"sys.stderr.write(' '.join(sorted(set({HEAVY!r}) & set(sys.modules)))); sys.exit(code)"
    )
    seconds, said = [], ""
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code, *arguments]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds), said
