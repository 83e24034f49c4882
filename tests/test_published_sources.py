"""Sources with a layout of their own: Stanford Cars, CUB, flowers, a CSV, nested archives, patterns of folders."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from stages.fetch.reading.bundles import forget_unpacked, open_bundle
from stages.fetch.source import Photo, Source
from stages.fetch.sources import csv, cub, flowers, folder, stanford_cars
from temper.base.errors import TemperError
from temper.settings.fetch import Limits
from tests.toys import published
from tests.toys.photos import toy_photo

LIMITS = Limits(10**6, 10**7)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def opened_cars(folder: Path) -> Source:
    return stanford_cars.open_source(stanford_cars.Settings(source="stanford_cars", path=str(folder)))


def cars(folder: Path) -> list[Photo]:
    return list(opened_cars(folder).photos)


def test_stanford_cars_has_names_splits_and_boxes(tmp_path: Path) -> None:
    photos = cars(published.stanford_cars(tmp_path, train=2, test=1))
    by_path = {photo.path: photo for photo in photos}
    assert by_path["cars_test/00003.jpg"].label == "Acura TL Sedan 2012"
    assert by_path["cars_train/00001.jpg"].split == "train" and by_path["cars_test/00001.jpg"].split == "test"
    assert {photo.box for photo in photos} == {(4.0, 8.0, 44.0, 40.0)}  # from 0, the end excluded


def test_stanford_cars_without_labels_of_the_test_photos(tmp_path: Path) -> None:
    photos = cars(published.stanford_cars(tmp_path, train=2, test=1, labelled_test=False))
    assert {photo.label for photo in photos if photo.split == "test"} == {None}
    assert all(photo.box for photo in photos)


def test_stanford_cars_from_archives_and_doubled_folders(tmp_path: Path) -> None:
    """As the original tgz files, and as Kaggle's copies, which have cars_train/cars_train."""
    plain = published.stanford_cars(tmp_path / "plain", train=2, test=1)
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("cars_train", "cars_test", "devkit"):
        files = {f"{name}/{path.name}": path.read_bytes() for path in sorted((plain / name).iterdir())}
        (packed / f"{name}.tgz").write_bytes(published.tgz(files))
    labels = "cars_test_annos_withlabels.mat"
    (packed / labels).write_bytes((plain / labels).read_bytes())
    expected = {(photo.data, photo.label, photo.split, photo.box) for photo in cars(plain)}
    photos = cars(packed)
    assert {(photo.data, photo.label, photo.split, photo.box) for photo in photos} == expected
    assert photos[0].path.startswith("cars_test/cars_test/")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("devkit/cars_meta.mat", "expected the devkit's cars_meta.mat, found cars_test"),
        ("cars_train", "expected photos in cars_train or cars_test"),
    ],
)
def test_stanford_cars_says_what_is_missing(tmp_path: Path, spoil: str, message: str) -> None:
    published.stanford_cars(tmp_path, train=1, test=1)
    for path in [tmp_path / spoil] if spoil.endswith("mat") else tmp_path.glob("cars_t*/*.jpg"):
        path.unlink()
    with pytest.raises(TemperError, match=message):
        cars(tmp_path)


def test_stanford_cars_refuses_what_is_no_devkit(tmp_path: Path) -> None:
    published.stanford_cars(tmp_path, train=1, test=1)
    path = tmp_path / "devkit/cars_train_annos.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(TemperError, match="cars_train_annos.mat: expected one of the devkit's .mat files"):
        cars(tmp_path)
    for variables in ({"class_names": 1}, {"annotations": np.zeros((1, 3))}):
        savemat(path, variables)
        with pytest.raises(TemperError, match="cars_train_annos.mat: expected "):
            cars(tmp_path)


def test_a_damaged_mat_ends_in_one_line_wherever_it_is_cut(tmp_path: Path) -> None:
    published.stanford_cars(tmp_path, train=1, test=1)
    path = tmp_path / "devkit/cars_meta.mat"
    data = path.read_bytes()
    for kept in (100, 200, len(data) - 8):
        path.write_bytes(data[:kept])
        with pytest.raises(TemperError, match="cars_meta.mat: expected "):
            cars(tmp_path)


def test_the_published_stanford_cars(shared: Path) -> None:
    folder = shared / "data/stanford_cars"
    source = opened_cars(folder)
    photos = list(source.photos)
    assert source.total == len(photos) == 60 and source.facts["annotated_but_not_there"] == 8144 - 60
    names = {str(name) for name in loadmat(folder / "devkit/cars_meta.mat", squeeze_me=True)["class_names"]}
    assert len(names) == 196 and {photo.label for photo in photos} <= names
    assert photos[0].label == "Audi TTS Coupe 2012" and photos[0].box == (38.0, 115.0, 569.0, 375.0)


def opened_cub(path: Path, data: bytes) -> Source:
    return cub.open_source(cub.Settings(source="cub", path="nothing", archive=str(path), sha256=sha256(data)))


def test_cub_is_read_from_its_own_tables(tmp_path: Path) -> None:
    (path := tmp_path / "c.tgz").write_bytes(data := published.cub(train=2, test=1))
    source = opened_cub(path, data)
    photos = list(source.photos)
    assert source.total == len(photos) == 9
    assert [photo.split for photo in photos] == ["train"] * 6 + ["test"] * 3
    assert photos[1].label == "002.Laysan_Albatross" and photos[1].data == toy_photo(1, 1, 40, ".jpg")
    assert {photo.box for photo in photos} == {(4.0, 6.0, 34.0, 31.0)}


def test_cub_photos_that_are_not_there_are_rows_with_a_problem(tmp_path: Path) -> None:
    (path := tmp_path / "c.tgz").write_bytes(data := without(published.cub(train=1, test=1), "_0003_79.jpg"))
    source = opened_cub(path, data)
    photos = list(source.photos)
    assert source.total == len(photos) == 6
    assert [photo.problem for photo in photos] == [None] * 5 + ["named in images.txt, but not there"]


def without(archive: bytes, ending: str) -> bytes:
    """A tgz without the files whose names end so."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if not member.name.endswith(ending)}
        return published.tgz({name: content.read() for name, content in files.items() if content})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("CUB_200_2011/classes.txt", "CUB_200_2011/names.txt", "expected CUB_200_2011/classes.txt"),
        ("CUB_200_2011/classes.txt", "", "received a row that fits none"),
    ],
)
def test_cub_says_what_is_missing(tmp_path: Path, old: str, new: str, message: str) -> None:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(published.cub(train=1, test=1))) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content
            files[new or old if member.name == old else member.name] = b"" if member.name == old else content.read()
    (path := tmp_path / "c.tgz").write_bytes(data := published.tgz(files))
    with pytest.raises(TemperError, match=message):
        opened_cub(path, data)


def test_flowers_leave_the_licence_out(tmp_path: Path) -> None:
    (path := tmp_path / "f.tgz").write_bytes(data := published.flowers(2))
    settings = flowers.Settings(source="flowers", path="nothing", archive=str(path), sha256=sha256(data))
    source = flowers.open_source(settings)
    photos = list(source.photos)
    assert source.total == len(photos) == 10
    assert {photo.label for photo in photos} == {"daisy", "dandelion", "roses", "sunflowers", "tulips"}


def csv_settings(path: Path, **changes: object) -> csv.Settings:
    values = {"source": "csv", "path": str(path), "unlabelled": "test", "label_column": "breed"}
    return csv.Settings.model_validate({**values, **changes})


def write_competition(folder: Path, table: str) -> Path:
    for name in ("train/a.jpg", "train/b.jpg", "train/extra.jpg", "test/c.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(toy_photo(0, len(name) + ord(name[-5]), 24, ".jpg"))
    (folder / "train.csv").write_text(table, encoding="utf-8")
    (folder / "sample_submission.csv").write_text("id,x\n", encoding="utf-8")
    return folder


def csv_photos(folder: Path, **changes: object) -> dict[str, tuple[str | None, str | None, str | None]]:
    source = csv.open_source(csv_settings(folder, **changes))
    photos = list(source.photos)
    assert len(photos) == source.total
    return {photo.path: (photo.label, photo.split, photo.problem) for photo in photos}


@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_a_csv_names_images_with_or_without_their_ending(tmp_path: Path, ending: str) -> None:
    folder = write_competition(
        tmp_path, f'\ufeffid,breed\na{ending},pug\nb{ending},"collie, rough"\nlost{ending},pug\n'
    )
    assert csv_photos(folder) == {
        "train/a.jpg": ("pug", None, None),
        "train/b.jpg": ("collie, rough", None, None),
        "train/extra.jpg": (None, None, None),
        "test/c.jpg": (None, None, None),
        f"lost{ending}": ("pug", None, "named in train.csv, but not there"),
    }


def test_a_csv_in_nested_archives_with_splits(tmp_path: Path) -> None:
    """As `kaggle competitions download` leaves it: one zip, with zips in it."""
    images = published.zipped({f"{name}.png": toy_photo(0, ord(name)) for name in "ab"})
    table = b"file\tkind\tset\nimages/a.png\tpug\tTrain\nimages/b.png\tcollie\tval\n"
    (path := tmp_path / "dogs.zip").write_bytes(published.zipped({"images.zip": images, "labels.tsv": table}))
    settings = {"table": "labels.tsv", "images": "", "image_column": "file", "label_column": "kind", "unlabelled": None}
    assert csv_photos(path, split_column="set", **settings) == {
        "images/a.png": ("pug", "Train", None),
        "images/b.png": ("collie", "val", None),
    }


def test_a_csv_with_other_spellings_and_doubled_folders(tmp_path: Path) -> None:
    """train.zip that holds train/, endings in another case, spaces around names, a name twice."""
    photos = {f"train/{name}": toy_photo(0, ord(name[0]), 24, ".jpg") for name in ("a.JPG", "b.jpg")}
    (tmp_path / "train.zip").write_bytes(published.zipped(photos))
    (tmp_path / "train.csv").write_text("id,breed\na.jpg,pug\nb.jpg ,collie\nb,collie\n", encoding="utf-8")
    assert csv_photos(tmp_path, unlabelled=None) == {
        "train/train/a.JPG": ("pug", None, None),
        "train/train/b.jpg": ("collie", None, None),
    }


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ("id,breed,breed\na,pug,cat\n", {}, r"expected one column breed, received \['id', 'breed', 'breed'\]"),
        ('id,breed\na,"pug\n', {}, "train.csv: expected a table of rows and columns, received "),
        ("id,breed\na,pug\n", {"table": "labels.csv"}, "^table: expected labels.csv, found "),
        ("id,breed\na,pug\n", {"label_column": "kind"}, r"expected one column kind, received \['id', 'breed'\]"),
        ("id,breed\nx,pug\n", {}, "^table train.csv: expected images in train, found none of 1, such as x"),
        ("id,breed\na,pug\n", {"split_column": "s"}, r"expected one column s, received \['id', 'breed'\]"),
        ("id,breed\na,pug\n", {"unlabelled": "nowhere"}, "^unlabelled: expected images in nowhere, found none"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(
    tmp_path: Path, table: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(TemperError, match=message):
        csv_photos(write_competition(tmp_path, table), **changes)


def test_a_csv_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    write_competition(tmp_path, "").joinpath("train.csv").write_bytes(b"id,breed\na,caf\xe9\n")
    with pytest.raises(TemperError, match="train.csv: expected UTF-8 text"):
        csv_photos(tmp_path)


@pytest.mark.usefixtures("in_tmp_path")
def test_archives_in_archives_are_folders() -> None:
    inner = published.tgz({"deep/2.png": b"two"})
    middle = published.zipped({"b.tar.gz": inner, "1.png": b"one"})
    Path("outer.zip").write_bytes(published.zipped({"a/m.zip": middle, "0.png": b"zero", "__MACOSX/x.zip": b"litter"}))
    for _ in range(2):
        bundle = open_bundle(Path("outer.zip"), LIMITS)
        assert dict(bundle.read(set(bundle.files))) == {
            "0.png": b"zero",
            "a/m/1.png": b"one",
            "a/m/b/deep/2.png": b"two",
        }
    assert list(Path(".temper/unpacked").rglob("copy"))
    forget_unpacked()
    assert not Path(".temper/unpacked").exists()


@pytest.mark.usefixtures("in_tmp_path")
def test_a_name_in_an_archive_and_beside_it_is_refused() -> None:
    Path("d/a").mkdir(parents=True)
    Path("d/a/1.png").write_bytes(b"1")
    Path("d/a.zip").write_bytes(published.zipped({"1.png": b"2"}))
    with pytest.raises(TemperError, match="received a/1.png in an archive and outside"):
        open_bundle(Path("d"), LIMITS)


@pytest.mark.usefixtures("in_tmp_path")
def test_a_damaged_archive_inside_is_refused() -> None:
    Path("outer.zip").write_bytes(published.zipped({"m.zip": published.zipped({"1.png": b"one"})[:-30]}))
    with pytest.raises(TemperError, match="m.zip: expected a "):
        open_bundle(Path("outer.zip"), LIMITS)


@pytest.mark.parametrize("prefix", ["./", ""])
def test_a_zip_made_from_inside_its_folder(tmp_path: Path, prefix: str) -> None:
    (path := tmp_path / "p.zip").write_bytes(published.zipped({f"{prefix}{c}/1.png": toy_photo(0, 1) for c in "ab"}))
    source = folder.open_source(folder.Settings(source="folder", path=str(path)))
    assert [photo.path for photo in source.photos] == ["a/1.png", "b/1.png"] and source.total == 2
