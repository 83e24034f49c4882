"""Where files are that params.yaml names, also for an experiment that works in a copy of the repository."""

from pathlib import Path

import pytest

from temper.base.errors import TemperError
from temper.base.paths import existing, program, scratch


@pytest.fixture
def copy_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder is a copy inside the repository, as `dvc exp run --temp` makes it; returns the repository."""
    repository = tmp_path / "repository"
    (repository / ".dvc/tmp/exps/copy").mkdir(parents=True)
    monkeypatch.chdir(repository / ".dvc/tmp/exps/copy")
    monkeypatch.setenv("DVC_ROOT", str(repository))
    return repository


def test_what_lies_beside_the_repository_is_found_from_a_copy(copy_of_a_repository: Path) -> None:
    (copy_of_a_repository.parent / "weights.h5").write_text("weights")
    assert existing("../weights.h5").read_text() == "weights"


def test_what_the_copy_has_itself_comes_first(copy_of_a_repository: Path) -> None:
    """Its version is the experiment's."""
    (copy_of_a_repository / "table.csv").write_text("today's")
    Path("table.csv").write_text("the experiment's")
    assert existing("table.csv").read_text() == "the experiment's"


def test_what_is_missing_is_called_missing(copy_of_a_repository: Path) -> None:
    with pytest.raises(TemperError, match=r"^\.\./none\.h5: expected a file or folder, found nothing there, from .*"):
        existing("../none.h5")


def test_scratch_folders_are_those_of_the_repository(copy_of_a_repository: Path) -> None:
    """So that an experiment in a copy goes on with what another one downloaded or left unfinished."""
    assert scratch("downloads") == copy_of_a_repository / ".temper/downloads" and scratch("downloads").is_dir()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/x/stages/embed.py"], "embed"),
        (["/x/stages/fetch/__main__.py", "cub"], "fetch-cub"),
        (["/x/stages/fetch/__main__.py", "../a b"], "fetch-.._a_b"),
    ],
)
def test_a_program_is_called_after_its_module_and_its_first_argument(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], name: str
) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    assert program() == name
