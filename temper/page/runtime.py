"""LiteRT.js, which runs models in browsers: two npm packages at fixed versions, fetched by `make page-runtime`.

Their archives are kept as npm packs them, outside git and DVC, and verified by their checksums at every use.
"""

import base64
import functools
import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass

from temper.base.errors import TemperError
from temper.base.paths import scratch


@dataclass(frozen=True)
class Package:
    """An npm package.

    Attributes:
        integrity: the SHA-512 of its archive, as in npm's lock files.
    """

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives its archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


CORE = Package(
    "@litertjs/core",
    "2.5.3",
    "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
)
WASM_UTILS = Package(
    "@litertjs/wasm-utils",
    "2.5.3",
    "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
)
PACKAGES = (CORE, WASM_UTILS)
# One build with relaxed SIMD, and one for browsers without it. The package has others: for several threads, which need
# special headers from the host, and for GPUs, which compute less exactly.
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal")
NOTICE = (
    f"The folder runtime/ is LiteRT.js {CORE.version} ({', '.join(one.name for one in PACKAGES)}), Copyright Google\n"
    "LLC, under the Apache License 2.0. Changed: litert.js imports wasm_utils.js by its place, both are without\n"
    "source maps, and each .bin is a .wasm compressed by gzip.\n"
)


def integrity(data: bytes) -> str:
    """The checksum of an archive in npm's notation."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def require(package: Package, data: bytes, where: object) -> None:
    """Raises a TemperError unless `data` is the archive of the package."""
    if integrity(data) != package.integrity:
        raise TemperError(
            f"{where}: expected {package.name} {package.version} with the checksum {package.integrity[:19]}..., "
            f"received {integrity(data)[:19]}...; make page-runtime fetches it again"
        )


def archives() -> dict[Package, bytes]:
    """The archive of each package.

    Raises:
        TemperError: one has not been fetched, or is damaged.
    """
    found = {}
    for package in PACKAGES:
        path = scratch("npm") / package.archive
        if not path.exists():
            raise TemperError(
                f"{path}: expected {package.name} {package.version}, which runs models in browsers, found none; "
                "make page-runtime fetches it"
            )
        found[package] = path.read_bytes()
        require(package, found[package], path)
    return found


def files() -> dict[str, bytes]:
    """The files of the runtime that the page loads, by their names in its folder `runtime`.

    Raises:
        TemperError: as in `archives`.
    """
    packed = archives()
    core, utils = (_script(packed[one], "dist/index.js") for one in (CORE, WASM_UTILS))
    bare = f'"{WASM_UTILS.name}"'  # an import by bare name needs an import map, which workers do not have
    if core.count(bare) != 1:
        raise TemperError(f"{CORE.name} {CORE.version}: expected one import of {bare}, found {core.count(bare)}")
    found = {"litert.js": core.replace(bare, '"./wasm_utils.js"').encode(), "wasm_utils.js": utils.encode()}
    for build in _BUILDS:
        found[f"{build}.js"] = _member(packed[CORE], f"wasm/{build}.js")
        # Compressed here to a third of the size, since many hosts send .wasm uncompressed. Not named .gz, because other
        # hosts then send a header that makes the browser unpack the file.
        found[f"{build}.bin"] = _compressed(_member(packed[CORE], f"wasm/{build}.wasm"))
    return found


@functools.cache  # compressing takes a second each
def _compressed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _script(archive: bytes, name: str) -> str:
    lines = _member(archive, name).decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("//# sourceMappingURL="))


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        member = packed.extractfile(f"package/{name}")
        assert member is not None  # the checksum guarantees that the archive has it
        return member.read()
