"""Outputs are whole or absent."""

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
