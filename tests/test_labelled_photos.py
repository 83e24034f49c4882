"""Labelled photos of a person's own: which folder or cell is which class, and what stops the run."""

from pathlib import Path

import pytest

from temper.base.errors import TemperError
from temper.inference.labelled_photos import match, read_labelled, strangers
from tests.toys.photos import toy_photo


def write(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(toy_photo(0, 0))


def test_class_folders_are_the_folders_at_the_top(in_tmp_path: Path) -> None:
    write("all/bee/2.png", "all/ant/10.png", "all/ant/2.png", "all/ant/deep/er/1.jpg", "all/.git/1.png")
    Path("all/readme.txt").touch()
    found = [(one.photo.place, one.published) for one in read_labelled("all")]
    assert found == [
        ("all/ant/10.png", "ant"),
        ("all/ant/2.png", "ant"),
        ("all/ant/deep/er/1.jpg", "ant"),
        ("all/bee/2.png", "bee"),
    ]


def test_photos_alone_have_no_class(in_tmp_path: Path) -> None:
    write("flat/1.png", "flat/2.png")
    assert [one.published for one in read_labelled("flat")] == [None, None]


@pytest.mark.parametrize("column", ["class", "class_name", "label"])
@pytest.mark.parametrize(("ending", "separator"), [(".csv", ","), (".tsv", "\t")])
def test_a_table_names_photos_from_its_own_folder(in_tmp_path: Path, column: str, ending: str, separator: str) -> None:
    lines = [["path", "other", column], ["a/1.png", "x", "red ant"], ["https://h/2.jpg", "", "bee"], ["3.png", "", ""]]
    lines += [[], ["", "x", "bee"]]
    table = Path("there") / f"table{ending}"
    table.parent.mkdir()
    table.write_text("\ufeff" + "".join(separator.join(line) + "\n" for line in lines), encoding="utf-8")
    found = read_labelled(str(table))
    assert [one.photo.place for one in found] == ["there/a/1.png", "https://h/2.jpg", "there/3.png", "there"]
    assert [one.published for one in found] == ["red ant", "bee", None, "bee"]
    assert found[3].photo.problem == "a row without a path" and found[0].photo.name == "a/1.png"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "expected a folder, or a table whose name ends in .csv or .tsv"),
        ("photo.png", "expected a folder, or a table"),
        ("empty", "expected photos, found none"),
        ("mixed", "expected class folders or photos alone, received both: 1 photos beside ant, bee"),
        ("no_path.csv", "expected the columns path and one of class, class_name, label, received file, class"),
        ("two_classes.csv", "expected the columns path and one of"),
        ("nothing.csv", "received none"),
        ("latin.csv", "expected a table in UTF-8"),
    ],
)
def test_what_cannot_be_read_in_one_way_stops_in_one_line(in_tmp_path: Path, place: str, message: str) -> None:
    write("photo.png", "mixed/1.png", "mixed/ant/1.png", "mixed/bee/1.png")
    Path("empty").mkdir()
    Path("no_path.csv").write_text("file,class\n1.png,ant\n", encoding="utf-8")
    Path("two_classes.csv").write_text("path,class,label\n1.png,ant,bee\n", encoding="utf-8")
    Path("nothing.csv").write_text("", encoding="utf-8")
    Path("latin.csv").write_bytes("path,class\n1.png,crème\n".encode("latin-1"))
    with pytest.raises(TemperError, match=f"^{place}: .*{message}") as refused:
        read_labelled(place)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("published", "classes", "meant"),
    [
        ("red ant", ["red ant", "Red Ant"], "red ant"),
        ("Red_Ant", ["red ant", "bee"], "red ant"),
        ("RED-ANT ", ["red ant", "bee"], "red ant"),
        ("cre\u0300me", ["cr\u00e8me", "bee"], "cr\u00e8me"),  # as macOS writes folders
        ("red_ant", ["red ant", "red-ant"], None),  # it could be either
        ("redant", ["red ant"], None),
        ("ants", ["ant"], None),
        ("unlabelled", ["ant"], None),
    ],
)
def test_names_are_matched_but_not_guessed(published: str, classes: list[str], meant: str | None) -> None:
    assert match([published], classes) == {published: meant}


def test_strangers_are_counted(in_tmp_path: Path) -> None:
    write("all/boat/1.png", "all/boat/2.png", "all/Ant/1.png")
    photos = read_labelled("all")
    assert strangers(photos, match(["boat", "Ant"], ["ant"])) == {"boat": 2}
