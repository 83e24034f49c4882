"""Damaged files are moved out of the way."""

import os
from pathlib import Path

import pytest

from temper.aside import is_file, put_aside


def test_what_is_put_aside_is_kept_once_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in ("first", "second"):
        (path := tmp_path / "a.bin").write_text(content)
        aside = put_aside(path, "a photo", "a poem")
        assert not path.exists() and aside.read_text() == content
    assert f"{path}: expected a photo, received a poem: put aside as a.bin.damaged" in capsys.readouterr().out
    path.mkdir()
    put_aside(path, "a photo", "a folder")
    path.mkdir()
    assert put_aside(path, "a photo", "a folder").is_dir(), "a folder takes the place of a folder"


@pytest.mark.parametrize("kind", ["nothing", "file", "linked file", "folder", "link", "dead link", "pipe"])
def test_only_a_regular_file_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    path = tmp_path / "a.bin"
    if kind == "file":
        path.write_bytes(b"content")
    elif kind == "linked file":
        (tmp_path / "elsewhere").write_bytes(b"content")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to("/dev/zero" if kind == "link" else tmp_path / "nowhere")
    assert is_file(path, "a photo") == (kind in ("file", "linked file"))
    assert path.exists() == (kind in ("file", "linked file"))
    assert bool(capsys.readouterr().out) == (kind not in ("nothing", "file", "linked file"))
