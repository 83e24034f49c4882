"""python -m apps.page_runtime, or make page-runtime: fetches the runtime that runs models in browsers.

LiteRT.js is downloaded by npm, from the registry that npm is configured for, in the versions and with the checksums of
temper/page/runtime.py. Nothing is installed, and none of its code runs here.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from temper import command_line
from temper.base.atomic import atomic_file
from temper.base.disk import in_words
from temper.base.errors import TemperError
from temper.base.paths import scratch
from temper.page.runtime import PACKAGES, Package, require


def main() -> int:
    """Fetches the packages that have not been fetched yet; returns the exit code."""
    for package in PACKAGES:
        place = scratch("npm") / package.archive
        if not _is_here(package, place):
            data = fetch(package)
            with atomic_file(place) as partial:
                partial.write_bytes(data)
        print(f"{place}: {package.name} {package.version}, {in_words(place.stat().st_size)}")
    return 0


def _is_here(package: Package, place: Path) -> bool:
    try:
        require(package, place.read_bytes(), place)
    except (OSError, TemperError):
        return False
    return True


def fetch(package: Package) -> bytes:
    """The bytes of a package's archive, downloaded by npm.

    Raises:
        TemperError: npm is missing, cannot download the package, or the package has another checksum.
    """
    wanted = f"{package.name}@{package.version}"
    if shutil.which("npm") is None:
        raise TemperError(f"{wanted}: expected npm (of Node.js), which fetches it, found none: install it")
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--ignore-scripts", "--loglevel=error", wanted]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archive = Path(folder) / package.archive
        if done.returncode or not archive.exists():
            said = next((line for line in done.stderr.splitlines() if "npm error" in line), "it said nothing")
            raise TemperError(f"{wanted}: expected npm to fetch it, received: {said}")
        data = archive.read_bytes()
    require(package, data, wanted)
    return data


if __name__ == "__main__":
    command_line.run(main)
