"""Outputs are whole or absent."""

import os
from pathlib import Path

import pytest

from temper.base.atomic import atomic_file, atomic_folder


def test_an_output_is_whole_or_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").touch()
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "file") as path:
        path.write_text("ne")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "folder") as path:
        (path / "new").touch()
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "old"]
    with atomic_folder(tmp_path / "folder") as path:
        (path / "new").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "new"]


def test_what_a_killed_run_left_beside_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".partial-folder").mkdir()
    (tmp_path / ".partial-folder/half").touch()
    with atomic_folder(tmp_path / "folder") as path:
        (path / "whole").touch()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["whole"]


def test_what_a_folder_holds_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file, then the folders from the inside out, then the rename, then the folder that holds the new name."""
    synced: list[tuple[str, bool]] = []  # each with whether the folder had its name by then

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)
        synced.append((path.as_posix(), (tmp_path / "folder").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_folder(tmp_path / "folder") as path:
        (path / "inner").mkdir()
        (path / "inner/file").write_text("bytes")
        (path / "file").write_text("bytes")
    partial = ".partial-folder"
    assert sorted(synced[:2]) == [(f"{partial}/file", False), (f"{partial}/inner/file", False)]
    assert synced[2:] == [(f"{partial}/inner", False), (partial, False), (".", True)]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: before.append((tmp_path / "file").exists()))
    with atomic_file(tmp_path / "file") as path:
        path.write_text("bytes")
    assert before == [False]
