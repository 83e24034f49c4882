"""Checks before anything is submitted: nodes can get the commit, its photos and the DVC remote, and names are free."""

import configparser
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import yaml

from apps.queue.repository import Repository
from temper.base.errors import TemperError


class Origin:
    """The git remote from which nodes clone."""

    def __init__(self, repository: Repository, remote: str = "origin") -> None:
        self.remote = remote
        self._repository, self._git = repository, repository.git

    def url(self) -> str:
        """The address that nodes clone from. The path of a local folder is made absolute.

        Raises:
            TemperError: there is no such remote, or its address holds a password, which everyone who can list the jobs
                would see.
        """
        url = self._git("remote", "get-url", "--", self.remote).strip()
        parts = urlsplit(url)
        if "@" in parts.netloc and (parts.password or parts.scheme in ("http", "https")):
            raise TemperError(
                f"{self.remote}: expected an address without a password, since jobs show it to everyone, received one "
                "with it: `git remote set-url`, and give each node credentials of its own"
            )
        local = self._repository.root / url
        return str(local.resolve()) if "://" not in url and local.exists() else url

    def require_committed(self) -> None:
        """Raises a TemperError if tracked files differ from the commit, because nodes get only the commit."""
        changed = self._repository.changed_files()
        if changed:
            some = ", ".join(changed[:3]) + (f", ... ({len(changed)} in all)" if len(changed) > 3 else "")
            raise TemperError(
                "expected all changes committed, because nodes clone the commit and see nothing else, received changes "
                f"of {some}: git commit and git push them, or git stash"
            )

    def require_pushed(self, commit: str) -> None:
        """Raises a TemperError if no branch of the git remote contains a commit."""
        self._git("fetch", "--quiet", self.remote)
        heads = self._git("ls-remote", "--heads", self.remote).splitlines()  # only branches that still exist there
        known = self._git("for-each-ref", "--contains", commit, "--format=%(objectname)", f"refs/remotes/{self.remote}")
        if not {line.split("\t")[0] for line in heads} & set(known.split()):
            raise TemperError(
                f"expected commit {commit[:7]} on a branch of {self.remote}, from which nodes clone, found it on none: "
                f"git push {self.remote} HEAD"
            )

    def require_photos(self) -> None:
        """Raises a TemperError if `fetch` reads photos from a relative path that are neither in git nor in DVC.

        On a node, `fetch` would find other photos there, or none. Absolute paths are not checked: they may be on a disk
        that the nodes share.
        """
        listed = self._git("ls-files", "-z", "*.dvc").split("\0")
        added = {PurePosixPath(name.removesuffix(".dvc")) for name in listed if name}
        for name, source in (yaml.safe_load(self._repository.base()).get("fetch") or {}).items():
            path = str(source.get("path", ""))
            if PurePosixPath(path).is_absolute():
                continue
            loose = [file for file in self._git("ls-files", "-z", "--others", "--", path).split("\0") if file]
            alone = [file for file in loose if not added & {PurePosixPath(file), *PurePosixPath(file).parents}]
            if alone:
                raise TemperError(
                    f"fetch.{name}.path: expected photos that nodes can have, received {path}, of which {len(alone)} "
                    f"files are neither in git nor in DVC, such as {min(alone)}: dvc add an archive of them, name it "
                    "as the path, and commit and push both; or name a folder that all nodes have by its full path"
                )

    def require_dvc_remote(self) -> None:
        """Raises a TemperError if the commit names no DVC remote that every node can reach."""
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        text = self._git("show", "HEAD:.dvc/config") if self._git("ls-tree", "HEAD", ".dvc/config") else ""
        parser.read_string("\n".join(line.strip() for line in text.splitlines()))  # an indent would continue a line
        name = parser.get("core", "remote", fallback="")
        sections = {section.strip("'"): section for section in parser.sections()}  # DVC writes ['remote "NAME"']
        url = parser.get(sections.get(f'remote "{name}"', ""), "url", fallback="")
        if not url:
            raise TemperError(
                "expected a default DVC remote in the committed .dvc/config, through which nodes get data and send "
                "results, found none: dvc remote add --default NAME URL, then commit and push .dvc/config"
            )
        if not re.match(r"\w+:", url) and not PurePosixPath(url).is_absolute():
            raise TemperError(
                f".dvc/config: expected a DVC remote that means the same on every node, received the relative path "
                f"{url}: dvc remote modify {name} url with a full path or an address"
            )

    def require_new(self, names: Sequence[str]) -> None:
        """Raises a TemperError if an experiment in this clone or on the git remote already has one of the names."""
        there = self._git("ls-remote", self.remote, "refs/exps/*").splitlines()
        places = {line.split("\t")[1].rsplit("/", 1)[1]: f"on {self.remote}" for line in there}
        places |= {ref.rsplit("/", 1)[1]: "here" for ref in self._repository.experiments()}
        for name in names:
            if name in places:
                hint = f"dvc exp pull {self.remote} {name} fetches it" if places[name] != "here" else "dvc exp show"
                raise TemperError(
                    f"--name: expected one that no experiment has, received {name}, which is {places[name]} ({hint})"
                )
