"""Submits runs as Ray jobs. Ray decides when and on which node each one runs, keeps its log, and can stop it."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.queue.postings import Run
from temper.base.errors import TemperError

_ON_NODE = Path(__file__).parent / "on_node"  # the folder that Ray copies to the node


@dataclass(frozen=True)
class Share:
    """The resources of its node that Ray reserves for a job while it runs.

    Attributes:
        cpus: the number of CPU cores; may be fractional.
        gpus: the number of GPUs; may be fractional.
        resources: amounts of custom resources, by their names in `ray start --resources`.
    """

    cpus: float = 1
    gpus: float = 0
    resources: dict[str, float] = field(default_factory=dict)


class Cluster:
    """The jobs of the cluster that the environment variable RAY_API_SERVER_ADDRESS names."""

    def __init__(self) -> None:
        try:
            from ray.job_submission import JobSubmissionClient  # noqa: PLC0415
        except ImportError:
            raise TemperError("expected the package ray, found none: make ray") from None
        logging.disable(logging.INFO)  # or Ray logs each file that it packs
        try:
            self._client = JobSubmissionClient()
        except Exception as error:  # Ray's HTTP client, and its search for a local cluster, raise many kinds
            raise TemperError(
                f"expected a Ray cluster: {_last_line(error)}; set RAY_API_SERVER_ADDRESS, as to http://127.0.0.1:8265"
            ) from None

    def identities(self, names: Sequence[str], url: str) -> list[str]:
        """Submission ids for the jobs of runs: the runs' names, or NAME.2, NAME.3, ... if an id is already taken.

        Ray keeps the ids of jobs that have ended, so a run that is submitted again needs a new one.

        Raises:
            TemperError: a job for a run of the same name, from the repository at `url`, waits or runs.
        """
        taken = set()
        for job in self._asked("list_jobs"):
            taken.add(job.submission_id)
            of_run = job.metadata or {}
            if of_run.get("origin") == url and of_run.get("run") in names and not job.status.is_terminal():
                raise TemperError(
                    f"--name: expected one that no job has, received {of_run['run']}, whose job is "
                    f"{job.status.value}: ray job logs {job.submission_id}"
                )
        return [next(one for one in _numbered(name, len(taken)) if one not in taken) for name in names]

    def submit(self, run: Run, identity: str, url: str, commit: str, share: Share) -> None:
        """Submits a run as a job with the id `identity`.

        Raises:
            TemperError: Ray refuses the job, for instance because somebody else has just used this id.
        """
        self._asked(
            "submit_job",
            entrypoint=shlex.join(entrypoint(run, url, commit, share.gpus)),
            submission_id=identity,
            runtime_env={"working_dir": str(_ON_NODE), "excludes": ["__pycache__"]},
            metadata={"run": run.name, "origin": url, "commit": commit},
            entrypoint_num_cpus=share.cpus,
            entrypoint_num_gpus=share.gpus,
            entrypoint_resources=share.resources or None,
        )

    def _asked(self, what: str, **how: Any) -> Any:
        try:
            return getattr(self._client, what)(**how)
        except Exception as error:  # as above
            raise TemperError(f"Ray: {_last_line(error)}") from None


def entrypoint(run: Run, url: str, commit: str, gpus: float) -> list[str]:
    """The command that a job runs on its node."""
    options = [word for override in run.overrides for word in ("-S", override)]
    return [
        *("python", "job.py", "--origin", url, "--commit", commit, "--name", run.name),
        *(["--gpus", f"{gpus:g}"] if gpus else []),
        *options,
    ]


def _numbered(name: str, taken: int) -> list[str]:
    return [name, *(f"{name}.{number}" for number in range(2, taken + 3))]


def _last_line(error: Exception) -> str:
    """The last line of an error that has text. Ray sends the whole traceback of what failed on the server."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1].rstrip(".") if lines else type(error).__name__
