"""Sources with a layout of their own: Stanford Cars, CUB, flowers, a CSV, nested archives, patterns of folders."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from scipy.io import loadmat, savemat

import published
from conftest import toy_photo
from stages.fetch import csv, cub, flowers, stanford_cars
from stages.fetch.bundles import forget_unpacked, open_bundle
from stages.fetch.layouts import place_by_patterns
from stages.fetch.source import Photo
from temper.errors import TemperError
from temper.params import CsvSource, CubSource, FlowersSource, StanfordCarsSource

HERE = Path()  # a source that needs nothing local


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cars(folder: Path) -> list[Photo]:
    return list(stanford_cars.open_source(StanfordCarsSource(kaggle=None), folder).photos)


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
    savemat(path, {"something": 1})
    with pytest.raises(TemperError, match=r"expected class_names or annotations in it, received \['__globals__'"):
        cars(tmp_path)


def test_the_published_stanford_cars(shared: Path) -> None:
    folder = shared / "data/stanford_cars"
    source = stanford_cars.open_source(StanfordCarsSource(kaggle=None), folder)
    photos = list(source.photos)
    assert source.total == len(photos) == 60 and source.facts["annotated_but_not_there"] == 8144 - 60
    names = {str(name) for name in loadmat(folder / "devkit/cars_meta.mat", squeeze_me=True)["class_names"]}
    assert len(names) == 196 and {photo.label for photo in photos} <= names
    assert photos[0].label == "Audi TTS Coupe 2012" and photos[0].box == (38.0, 115.0, 569.0, 375.0)


def test_cub_is_read_from_its_own_tables(tmp_path: Path) -> None:
    (path := tmp_path / "c.tgz").write_bytes(data := published.cub(train=2, test=1))
    source = cub.open_source(CubSource(archive=str(path), sha256=sha256(data)), HERE)
    photos = list(source.photos)
    assert source.total == len(photos) == 9
    assert [photo.split for photo in photos] == ["train"] * 6 + ["test"] * 3
    assert photos[1].label == "002.Laysan_Albatross" and photos[1].data == toy_photo(1, 1, 40, ".jpg")
    assert {photo.box for photo in photos} == {(4.0, 6.0, 34.0, 31.0)}


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
        cub.open_source(CubSource(archive=str(path), sha256=sha256(data)), HERE)


def test_flowers_leave_the_licence_out(tmp_path: Path) -> None:
    (path := tmp_path / "f.tgz").write_bytes(data := published.flowers(2))
    source = flowers.open_source(FlowersSource(archive=str(path), sha256=sha256(data)), HERE)
    photos = list(source.photos)
    assert source.total == len(photos) == 10
    assert {photo.label for photo in photos} == {"daisy", "dandelion", "roses", "sunflowers", "tulips"}


def csv_settings(**changes: object) -> CsvSource:
    values = {"kaggle": None, "table": "train.csv", "images": "train", "unlabelled": "test", "image_column": "id"}
    return CsvSource.model_validate({**values, "label_column": "breed", "split_column": None, **changes})


def write_competition(folder: Path, table: str) -> Path:
    for name in ("train/a.jpg", "train/b.jpg", "train/extra.jpg", "test/c.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(toy_photo(0, len(name) + ord(name[-5]), 24, ".jpg"))
    (folder / "train.csv").write_text(table, encoding="utf-8")
    (folder / "sample_submission.csv").write_text("id,x\n", encoding="utf-8")
    return folder


def csv_photos(folder: Path, **changes: object) -> dict[str, tuple[str | None, str | None, str | None]]:
    source = csv.open_source(csv_settings(**changes), folder)
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
        "images/a.png": ("pug", "train", None),
        "images/b.png": ("collie", "validation", None),
    }


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ("id,breed\na,pug\n", {"table": "labels.csv"}, "expected labels.csv, found "),
        ("id,breed\na,pug\n", {"label_column": "kind"}, r"expected a column kind, received \['id', 'breed'\]"),
        ("id,breed\nx,pug\n", {}, "expected images in train, found none of 1, such as x"),
        (
            "id,breed,s\na,pug,holdout\n",
            {"split_column": "s"},
            "line 2: expected train, validation or test, received 'ho",
        ),
        ("id,breed\na,pug\n", {"unlabelled": "nowhere"}, "expected images in nowhere, found none"),
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
    for _ in range(2):  # the second time from what the first unpacked
        bundle = open_bundle(Path("outer.zip"))
        assert dict(bundle.read(set(bundle.files))) == {
            "0.png": b"zero",
            "a/m/1.png": b"one",
            "a/m/b/deep/2.png": b"two",
        }
    assert list(Path(".temper/unpacked").rglob("*.zip"))
    forget_unpacked()
    assert not Path(".temper/unpacked").exists()


@pytest.mark.usefixtures("in_tmp_path")
def test_a_name_in_an_archive_and_beside_it_is_refused() -> None:
    Path("d/a").mkdir(parents=True)
    Path("d/a/1.png").write_bytes(b"1")
    Path("d/a.zip").write_bytes(published.zipped({"1.png": b"2"}))
    with pytest.raises(TemperError, match="received a/1.png in an archive and outside"):
        open_bundle(Path("d"))


@pytest.mark.usefixtures("in_tmp_path")
def test_a_damaged_archive_inside_is_refused() -> None:
    Path("outer.zip").write_bytes(published.zipped({"m.zip": published.zipped({"1.png": b"one"})[:-30]}))
    with pytest.raises(TemperError, match="m.zip: expected a "):
        open_bundle(Path("outer.zip"))


BOTH = ["{split}/{label}/{name}", "{split}/{name}"]
PATTERNS = {
    "split and class folders": (BOTH, "x/train/ant/1.png", ("train", "ant")),
    "a named split": (BOTH, "images/images/ant/1.png", ("train", "ant")),
    "a split of loose images": (BOTH, "test/test/1.png", ("test", None)),
    "its case": (BOTH, "Valid/ant/1.png", ("validation", "ant")),
    "no known split": (BOTH, "other/ant/1.png", (None, None)),
    "classes alone": (["{label}/{name}"], "a/b/ant/1.png", (None, "ant")),
    "a class in the name": (["{split}/{label}.{name}"], "train/cat.0.jpg", ("train", "cat")),
    "a class before the split": (["{label}/{split}/{name}"], "ant/test/1.png", ("test", "ant")),
    "a star": (["{label}/*/{name}"], "ant/2019/1.png", (None, "ant")),
    "a literal": (["big (1)/{label}/{name}"], "big (1)/ant/1.png", (None, "ant")),
}


@pytest.mark.parametrize(("patterns", "name", "expected"), PATTERNS.values(), ids=PATTERNS)
def test_places_by_patterns(patterns: list[str], name: str, expected: tuple[str | None, str | None]) -> None:
    fits = {"{": "train/ant/0.png"}
    files = [name, "README.md", *fits.values()]
    places = place_by_patterns(files, [*patterns, "{split}/{label}/{name}"], {"images": "train"})
    assert places[name] == expected and "README.md" not in places


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["{splits}/{name}"], r"received {splits}; did you mean {split}\?"),
        (["{label}/{label}/{name}"], "at most once, received '{label}/{label}/{name}'"),
        (["{label}"], "expected {name} once"),
        (["{split}/{label}/{name}"], "expected images that fit .*, found none; the first of 1 images is a/1.png"),
    ],
)
def test_patterns_that_are_none_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(TemperError, match=message):
        place_by_patterns(["a/1.png"], patterns, {})
