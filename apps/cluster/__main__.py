"""python -m apps.cluster -S lr=3e-6 -S seed=1 [--name NAME] [--gpus 1] [--cpus 1] [--resource NAME=AMOUNT]
   python -m apps.cluster -S lr=1e-5,3e-6 -S seed=1,2 --name NAME

Submits a run, or each run of a grid, to a Ray cluster as a job of its own. On its node, the job clones the git remote
at the commit that is checked out here, runs `dvc exp run` with these settings, and pushes the results. The environment
variable RAY_API_SERVER_ADDRESS names the cluster, as for `ray job`, which lists, follows and stops the jobs. `dvc exp
pull` fetches the results.
"""

import argparse
import math
from pathlib import Path

from apps.cluster.jobs import Cluster, Share
from apps.cluster.origin import Origin
from apps.cluster.overrides import runs
from apps.queue.repository import Repository
from temper import command_line
from temper.base.errors import TemperError


def parsed() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-S", "--set-param", metavar="KEY=VALUE", action="append", default=[], help="as of dvc exp run")
    parser.add_argument("-n", "--name", help="of the experiment; those of a grid are NAME-1, NAME-2, ...")
    parser.add_argument("--gpus", type=float, default=0, help="that a job has for itself (default: none, it sees none)")
    parser.add_argument(
        "--cpus", type=float, default=1, help="CPU cores that Ray reserves for each job (default: %(default)g)"
    )
    parser.add_argument("--resource", metavar="NAME=AMOUNT", action="append", default=[], help="of ray start's own")
    parser.add_argument("--remote", default="origin", help="git remote that nodes clone from (default: %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Checks every run and the repository, then submits the jobs; prints a line for each."""
    chosen = parsed()
    share = share_of(chosen)
    repository = Repository(Path())
    origin = Origin(repository, chosen.remote)
    origin.require_committed()
    every = runs(chosen.set_param, chosen.name, repository.base())
    names, commit, url = [run.name for run in every], repository.head(), origin.url()
    origin.require_photos()
    origin.require_dvc_remote()
    origin.require_pushed(commit)
    origin.require_new(names)
    cluster = Cluster()
    for run, identity in zip(every, cluster.identities(names, url), strict=True):
        cluster.submit(run, identity, url, commit, share)
        print(f"{run.name}: submitted, follow it by: ray job logs {identity} --follow", flush=True)
    print(f"when they have ended: dvc exp pull {chosen.remote} {' '.join(names)}")
    return 0


def share_of(chosen: argparse.Namespace) -> Share:
    """The resources that each job asks for, from the command line.

    Raises:
        TemperError: an amount is not a number, or is too small.
    """
    resources = {}
    for text in chosen.resource:
        name, _, amount = text.partition("=")
        resources[name] = _amount(f"--resource {name}", amount)
    # At least some CPU: a job that asks for nothing would run on the head node, even if other nodes have room.
    return Share(_amount("--cpus", chosen.cpus), _amount("--gpus", chosen.gpus, zero=True), resources)


def _amount(of: str, text: str | float, zero: bool = False) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not (0 < amount < math.inf or (zero and amount == 0)):
        raise TemperError(
            f"{of}: expected a number {'from 0' if zero else 'above 0'}, received {'none' if text == '' else text}"
        )
    return amount


if __name__ == "__main__":
    command_line.run(main)
