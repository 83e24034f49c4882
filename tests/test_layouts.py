"""What folders are taken for (law 14): a table of real layouts, each with its reading or the error that stops it."""

import itertools
import json
import re
import time

import pytest

from stages.fetch.reading.layouts import Place, place_by_folders, place_by_patterns, read_as
from temper.base.errors import TemperError
from temper.endings import is_image
from temper.split_names import meaning, prefix, says_nothing

MEANINGS = {
    "train": """train|Train|TRAIN|training|trn|train_data|training_set|train_images|Train Images|trainset|TrainSet|
        trainImages|TRAINING-DATA|Training Data|train (1)|train - Copy|train_1|train2017|train_256x256|train.jpg|
        DATASET_TRAIN|dataset_train|images_train|imgs-train|cars_train|seg_train|flowers_train|flowersTrain|
        asl_alphabet_train|ILSVRC2012_img_train|cifar10-train|train-20221106T023808Z-001|trainval|train_val|trainA|
        traindata|Ｔｒａｉｎ|my_train_photos|train_resized""",
    "validation": """val|Val|valid|VALID|validate|validation|validation_set|Validation Images|valset|val2017|dev|devset|
        dev_data|seg_val|ILSVRC2012_img_val""",
    "test": """test|tests|Testing|test_set|testset|TestSet|test1|test (2)|test_images|test_data|asl_alphabet_test|
        seg_test|seg_pred|prediction|PublicTest|private_test|eval|evaluation|Evaluation Set|holdout|
        hold-out|hold_out_set""",
    "": """cats|test_tube|test tubes|trainers|trains|trainee|train_station|training shoes|test_pattern|valley|value|
        valve|contest|latest|protest|invalid|not_valid|non-train|device|develop|evaluate me|predator|train_test_split|
        train_val_test|set1|fold_1|images|data|1|2019|  |_|n02085620-Chihuahua|été|猫|treino|训练集""",
}


@pytest.mark.parametrize(
    ("name", "split"),
    [(name.strip(" \n") or name, split or None) for split, names in MEANINGS.items() for name in names.split("|")],
)
def test_what_people_call_splits(name: str, split: str | None) -> None:
    assert meaning(name) == split


def test_what_stands_before_a_split_word() -> None:
    assert [prefix(name) for name in ("train", "dataset_train", "Cars-Train", "asl_alphabet_test", "steam train")] == [
        *("", "", "cars", "asl alphabet", "steam")
    ]
    assert all(map(says_nothing, ("images", "IMG", "data", "image_files", "dataset (1)")))
    assert not any(map(says_nothing, ("cats", "train", "2019", "", "images of cats")))


def expand(*names: str) -> list[str]:
    """The names that braces stand for: `{a,b}/1.png` is a/1.png and b/1.png."""
    found = []
    for name in names:
        pieces = [piece.split(",") for piece in re.split(r"[{}]", name)]
        pieces = [p if n % 2 else [",".join(p)] for n, p in enumerate(pieces)]
        found += ["".join(parts) for parts in itertools.product(*pieces)]
    return found


def parents(files: list[str]) -> list[str]:
    return sorted({"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)})


Read = dict[str | None, str]  # the labels in each split, by spaces; "-": unlabelled images

# What the folders hold; the splits and labels that are read, as published; the patterns that say the same.
LAYOUTS: dict[str, tuple[list[str], Read, list[str]]] = {
    # Classes alone
    "class folders": (["{ant,bee}/1.png"], {None: "ant bee"}, ["{label}/{name}"]),
    "below one folder": (["photos/{ant,bee}/1.png"], {None: "ant bee"}, ["photos/{label}/{name}"]),
    "below three": (["a/b/c/{ant,bee}/1.png"], {None: "ant bee"}, ["a/b/c/{label}/{name}"]),
    "one class": (["d/ant/{1,2}.png"], {None: "ant"}, ["d/{label}/{name}"]),
    "numbers": (["{0,1,10}/1.png"], {None: "0 1 10"}, ["{label}/{name}"]),
    "unicode": (["{猫,chien_été}/1.png"], {None: "猫 chien_été"}, ["{label}/{name}"]),
    "upper case": (["{CATS,DOGS}/1.JPG"], {None: "CATS DOGS"}, ["{label}/{name}"]),
    "120 breeds": (
        ["Images/{n02085620-Chihuahua,n02085782-Japanese_spaniel}/n02085620_7.jpg"],
        {None: "n02085620-Chihuahua n02085782-Japanese_spaniel"},
        ["Images/{label}/{name}"],
    ),
    "Caltech's numbered names": (
        ["256_ObjectCategories/{001.ak47,002.american-flag}/001_0001.jpg"],
        {None: "001.ak47 002.american-flag"},
        ["256_ObjectCategories/{label}/{name}"],
    ),
    "PlantVillage's underscores": (
        ["PlantVillage/{Potato___healthy,Tomato__x}/1.JPG"],
        {None: "Potato___healthy Tomato__x"},
        ["PlantVillage/{label}/{name}"],
    ),
    "loose images": (["{ant,bee}/1.png", "x.png"], {None: "ant bee -"}, ["{label}/{name}"]),
    "folders inside a class": (["ant/{a,b}/1.png", "bee/1.png"], {None: "ant bee"}, ["{label}/**/{name}"]),
    "images/ in each class": (["{ant,bee}/images/1.png"], {None: "ant bee"}, ["{label}/**/{name}"]),
    "two genera share a species": (
        ["Acer/{rubrum,album,nigrum}/1.png", "Quercus/{robur,album,suber}/1.png"],
        {None: "Acer Quercus"},
        ["{label}/**/{name}"],
    ),
    "species named alike in few genera": (
        [
            "{Acer,Poa}/album/1.png",
            "Poa/annua/1.png",
            "{Ilex,Rosa,Tilia}/1.png",
            "Ilex/a/1.png",
            "Rosa/{b,c}/1.png",
            "Tilia/{d,e}/1.png",
        ],
        {None: "Acer Poa Ilex Rosa Tilia"},
        ["{label}/**/{name}"],
    ),
    "text above and inside": (["README.md", "d/{ant,bee}/1.png", "d/a.csv"], {None: "ant bee"}, ["d/{label}/{name}"]),
    "annotations beside the classes' folder": (
        ["images/{ant,bee}/1.png", "annotations/ant/1.xml", "annotations/xmls/deep/1.xml"],
        {None: "ant bee"},
        ["images/{label}/{name}"],
    ),
    "a class of an unknown format": (["{ant,bee}/1.png", "cow/1.heic"], {None: "ant bee cow"}, ["{label}/{name}"]),
    "classes named by words": (
        ["{test_tube,trainers,valley}/1.png"],
        {None: "test_tube trainers valley"},
        ["{label}/{name}"],
    ),
    "a class called train": (["{train,car,bus}/1.png"], {None: "bus car train"}, ["{label}/{name}"]),
    "kinds of trains": (["{freight_train,steam_train}/1.png"], {None: "freight_train steam_train"}, ["{label}/{name}"]),
    "one kind of trains": (["steam_train/a/1.png", "bus/b/1.png"], {None: "bus steam_train"}, ["{label}/**/{name}"]),
    "valid and invalid": (["{valid,invalid}/1.png"], {None: "invalid valid"}, ["{label}/{name}"]),
    "sets of other names": (["{set1,set2}/only/1.png"], {None: "set1 set2"}, ["{label}/**/{name}"]),
    # Splits above classes
    "the three": (
        ["{train,val,test}/{ant,bee}/1.png"],
        {"train": "ant bee", "val": "ant bee", "test": "ant bee"},
        ["{split}/{label}/{name}"],
    ),
    "superdatascience": (
        ["dataset/{training_set,test_set}/{cats,dogs}/1.jpg", "dataset/single_prediction.txt"],
        {"training_set": "cats dogs", "test_set": "cats dogs"},
        ["dataset/{split}/{label}/{name}"],
    ),
    "roboflow": (
        ["{train,valid,test}/{ant,bee}/1.jpg", "README.roboflow.txt"],
        {"train": "ant bee", "valid": "ant bee", "test": "ant bee"},
        ["{split}/{label}/{name}"],
    ),
    "data/train": (
        ["data/{train,val}/{ant,bee}/1.jpg"],
        {"train": "ant bee", "val": "ant bee"},
        ["data/{split}/{label}/{name}"],
    ),
    "in any case": (
        ["{TRAIN,Test}/{ant,bee}/1.jpg"],
        {"TRAIN": "ant bee", "Test": "ant bee"},
        ["{split}/{label}/{name}"],
    ),
    "Training Data": (
        ["Training Data/{cats,dogs}/1.jpg", "Testing Data/{cats,dogs}/1.jpg"],
        {"Training Data": "cats dogs", "Testing Data": "cats dogs"},
        ["{split}/{label}/{name}"],
    ),
    "food-11": (
        ["{training,validation,evaluation}/{Bread,Soup}/0_0.jpg"],
        {"training": "Bread Soup", "validation": "Bread Soup", "evaluation": "Bread Soup"},
        ["{split}/{label}/{name}"],
    ),
    "fruits-360": (
        ["fruits-360/{Training,Test}/{Apple_1,Kiwi}/1.jpg", "fruits-360/readme.md"],
        {"Training": "Apple_1 Kiwi", "Test": "Apple_1 Kiwi"},
        ["fruits-360/{split}/{label}/{name}"],
    ),
    "Intel's, nested and with unlabelled ones": (
        ["seg_train/seg_train/{sea,street}/1.jpg", "seg_test/seg_test/{sea,street}/1.jpg", "seg_pred/seg_pred/1.jpg"],
        {"seg_train": "sea street", "seg_test": "sea street", "seg_pred": "-"},
        ["{split}/*/{label}/{name}", "{split}/**/{name}"],
    ),
    "dogs against cats": (
        ["dogs/train/{cat,dog}/1.jpg", "dogs/test1/1.jpg"],
        {"train": "cat dog", "test1": "-"},
        ["dogs/{split}/{label}/{name}", "dogs/{split}/{name}"],
    ),
    "ASL alphabet": (
        ["asl_alphabet_train/asl_alphabet_train/{A,B}/A1.jpg", "asl_alphabet_test/asl_alphabet_test/A_test.jpg"],
        {"asl_alphabet_train": "A B", "asl_alphabet_test": "-"},
        ["{split}/*/{label}/{name}", "{split}/**/{name}"],
    ),
    "blood cells": (
        ["dataset2/images/{TRAIN,TEST}/{EOSINOPHIL,NEUTROPHIL}/1.jpeg", "dataset2/images/TEST_SIMPLE.txt"],
        {"TRAIN": "EOSINOPHIL NEUTROPHIL", "TEST": "EOSINOPHIL NEUTROPHIL"},
        ["dataset2/images/{split}/{label}/{name}"],
    ),
    "chest x-rays": (
        ["chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/1.jpeg"],
        dict.fromkeys(["train", "val", "test"], "NORMAL PNEUMONIA"),
        ["chest_xray/{split}/{label}/{name}"],
    ),
    "imagenette": (
        ["imagenette2-320/{train,val}/{n01440764,n02102040}/1.JPEG"],
        dict.fromkeys(["train", "val"], "n01440764 n02102040"),
        ["imagenette2-320/{split}/{label}/{name}"],
    ),
    "tiny-imagenet": (
        ["tiny-imagenet-200/train/{n01443537,n01629819}/images/1.JPEG", "tiny-imagenet-200/{val,test}/images/1.JPEG"],
        {"train": "n01443537 n01629819", "val": "-", "test": "-"},
        ["tiny-imagenet-200/{split}/{label}/**/{name}", "tiny-imagenet-200/{split}/**/{name}"],
    ),
    "FER-2013": (
        ["{Training,PublicTest,PrivateTest}/{angry,happy}/1.png"],
        dict.fromkeys(["Training", "PublicTest", "PrivateTest"], "angry happy"),
        ["{split}/{label}/{name}"],
    ),
    "in pieces": (
        ["{train_1,train_2,test_1}/{a,b}/1.png"],
        dict.fromkeys(["train_1", "train_2", "test_1"], "a b"),
        ["{split}/{label}/{name}"],
    ),
    "named after the dataset": (
        ["{flowers_train,flowers_test}/{a,b}/1.png"],
        dict.fromkeys(["flowers_train", "flowers_test"], "a b"),
        ["{split}/{label}/{name}"],
    ),
    "downloaded from Drive": (
        ["train-20221106T023808Z-001/train/{a,b}/1.png", "test-20221106T023808Z-001/test/{a,b}/1.png"],
        dict.fromkeys(["train-20221106T023808Z-001", "test-20221106T023808Z-001"], "a b"),
        ["{split}/*/{label}/{name}"],
    ),
    "annotations beside the splits": (
        ["d/{train,test}/{a,b}/1.png", "d/annotations/{train,x}/1.xml", "other/train/1.txt"],
        {"train": "a b", "test": "a b"},
        ["d/{split}/{label}/{name}"],
    ),
    "a class of an unknown format, above splits": (
        ["{ant,bee}/{train,test}/1.png", "cow/train/1.heic"],
        {"train": "ant bee cow", "test": "ant bee"},
        ["{label}/{split}/{name}"],
    ),
    "only a train split": (["d/train/{ant,bee}/1.png"], {"train": "ant bee"}, ["d/{split}/{label}/{name}"]),
    "only one, after the dataset": (
        ["cars_train/{audi,bmw}/1.png"],
        {"cars_train": "audi bmw"},
        ["{split}/{label}/{name}"],
    ),
    "a flat test folder": (
        ["train/{ant,bee}/1.png", "test/1.png"],
        {"train": "ant bee", "test": "-"},
        ["{split}/{label}/{name}", "{split}/{name}"],
    ),
    "a test folder in a test folder": (
        ["train/{ant,bee}/1.png", "test/test/1.png"],
        {"train": "ant bee", "test": "-"},
        ["{split}/{label}/{name}", "{split}/**/{name}"],
    ),
    "a testset in a test folder": (
        ["train/{ant,bee}/1.png", "test/testset/1.png"],
        {"train": "ant bee", "test": "-"},
        ["{split}/{label}/{name}", "{split}/**/{name}"],
    ),
    "images/ in the splits": (
        ["{train,test}/images/{ant,bee}/1.png"],
        {"train": "ant bee", "test": "ant bee"},
        ["{split}/*/{label}/{name}"],
    ),
    "the dataset's name in the splits": (
        ["{train,test}/flowers/{rose,tulip}/1.png"],
        {"train": "rose tulip", "test": "rose tulip"},
        ["{split}/*/{label}/{name}"],
    ),
    "one class in the splits": (
        ["{train,test}/ant/1.png"],
        {"train": "ant", "test": "ant"},
        ["{split}/{label}/{name}"],
    ),
    "a class called train in train": (
        ["{train,test}/{bus,train}/1.png"],
        {"train": "bus train", "test": "bus train"},
        ["{split}/{label}/{name}"],
    ),
    "valid and invalid in splits": (
        ["{train,test}/{valid,invalid}/1.png"],
        {"train": "valid invalid", "test": "valid invalid"},
        ["{split}/{label}/{name}"],
    ),
    "a dataset called after its test": (
        ["my_test/{train,val}/{a,b}/1.png"],
        {"train": "a b", "val": "a b"},
        ["my_test/{split}/{label}/{name}"],
    ),
    "train_test_split": (
        ["train_test_split/{train,test}/{a,b}/1.png"],
        {"train": "a b", "test": "a b"},
        ["train_test_split/{split}/{label}/{name}"],
    ),
    "beside unlabelled loose ones": (
        ["{train,test}/{a,b}/1.png", "x.png"],
        {"train": "a b", "test": "a b", None: "-"},
        ["{split}/{label}/{name}"],
    ),
    # Classes above splits
    "classes above splits": (
        ["{ant,bee}/{train,test}/1.png"],
        {"train": "ant bee", "test": "ant bee"},
        ["{label}/{split}/{name}"],
    ),
    "MVTec-like, deeper": (
        ["d/{bottle,cable}/train/good/1.png", "d/{bottle,cable}/test/{good,broken}/1.png"],
        {"train": "bottle cable", "test": "bottle cable"},
        ["d/{label}/{split}/**/{name}"],
    ),
    "not all splits in each class": (
        ["ant/{train,test}/1.png", "bee/train/1.png"],
        {"train": "ant bee", "test": "ant"},
        ["{label}/{split}/{name}"],
    ),
}


@pytest.mark.parametrize(("names", "expected", "patterns"), LAYOUTS.values(), ids=LAYOUTS)
def test_folders_are_read(names: list[str], expected: Read, patterns: list[str]) -> None:
    files = expand(*names)
    places = place_by_folders(files, parents(files))
    assert summary(places) == {split: set(labels.split()) for split, labels in expected.items()}
    assert read_as(places) == patterns


# tiny-imagenet's val/images/1.JPEG is unlabelled by what `images` means, which no pattern can say.
@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"tiny-imagenet"}))
def test_what_was_read_can_be_set_as_the_layout(layout: str) -> None:
    names, _, patterns = LAYOUTS[layout]
    files = expand(*names)
    places = place_by_folders(files, parents(files))
    assert place_by_patterns(files, patterns) == {name: place for name, place in places.items() if is_image(name)}


def summary(places: dict[str, Place]) -> dict[str | None, set[str]]:
    """The labels in each split."""
    found: dict[str | None, set[str]] = {}
    for split, label in places.values():
        found.setdefault(split, set()).add(label or "-")
    return found


REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "expected class folders of images, found none (of 0 files)"),
    "no image": (["notes.txt"], "expected class folders of images, found none (of 1 files)"),
    "no folder": (["{1,2}.png"], "expected class folders, received images that lie in no folder"),
    "flat splits": (
        ["{train,test}/1.png"],
        "expected class folders, found none in test (1), train (1), which are named",
    ),
    "Stanford's flat cars": (
        ["{cars_train,cars_test}/{1,2}.jpg"],
        "found none in cars_test (2), cars_train (2), which",
    ),
    "a detection dataset": (
        ["{train,valid}/images/1.jpg", "{train,valid}/labels/1.txt"],
        "found none in train (1), val",
    ),
    "splits among other folders": (
        ["{train,test,extra}/{a,b}/1.png"],
        "expected split folders only (test, train), received also extra (2); remove",
    ),
    "a sample beside a split": (
        ["train/{a,b}/1.png", "sample/1.png"],
        "expected split folders only (train), received also sample (1); remove",
    ),
    "splits in some classes": (
        ["ant/{train,test}/1.png", "bee/1.png"],
        "in every class folder or in none, received ant with test, train, and bee",
    ),
    "splits in a split": (
        ["train/{train,val}/{a,b}/1.png", "test/{a,b}/1.png"],
        "in the split train, received folders that are named as splits again: train, val",
    ),
}


@pytest.mark.parametrize(("names", "message"), REFUSED.values(), ids=REFUSED)
def test_what_holds_no_classes_is_refused(names: list[str], message: str) -> None:
    files = expand(*names)
    with pytest.raises(TemperError, match=re.escape(message)):
        place_by_folders(files, parents(files))


@pytest.mark.parametrize(
    ("names", "empty"),
    [
        (["{ant,bee}/1.png"], "cat"),
        (["{train,test}/ant/1.png"], "test/bee"),
        (["seg_train/seg_train/{a,b}/1.png", "seg_test/seg_test/{a,b}/1.png"], "seg_test/seg_test/c"),
        (["{ant,bee}/{train,test}/1.png"], "cat"),
    ],
)
def test_an_empty_class_folder_is_refused(names: list[str], empty: str) -> None:
    files = expand(*names)
    with pytest.raises(TemperError, match=f"found none in {empty}; fill it or remove it"):
        place_by_folders(files, [*parents(files), empty])


# Folders that can be read in two ways; parts of the message; the two readings.
AMBIGUOUS: dict[str, tuple[list[str], list[str], Read, Read]] = {
    "sets of unknown names": (
        ["{set1,set2}/{cats,dogs}/{1,2}.png"],
        [
            "received 2 folders that hold folders of the same names: set1, set2",
            "cats (4), dogs (4)",
            "set1 (4), set2 (4)",
        ],
        {"set1": "cats dogs", "set2": "cats dogs"},
        {None: "set1 set2"},
    ),
    "splits in another language": (
        ["d/{treino,teste}/{gato,cão}/1.png"],
        ["teste, treino", "say in normalize.splits what each stands for"],
        {"treino": "gato cão", "teste": "gato cão"},
        {None: "treino teste"},
    ),
    "folds": (
        ["{fold_0,fold_1,fold_2}/{a,b,c}/1.png"],
        ["received 3 folders"],
        dict.fromkeys(["fold_0", "fold_1", "fold_2"], "a b c"),
        {None: "fold_0 fold_1 fold_2"},
    ),
    "classes named before the splits": (
        ["{cats,dogs}_{train,test}/1.png"],
        ["received those of cats, dogs: cats_test, ", "cats, dogs are the classes"],
        dict.fromkeys(["cats_train", "cats_test", "dogs_train", "dogs_test"], "-"),
        {"train": "cats dogs", "test": "cats dogs"},
    ),
    "two datasets with the same classes": (
        ["{cats,dogs}_{train,test}/{big,small}/1.png"],
        ["received those of cats, dogs: cats_test, "],
        dict.fromkeys(["cats_train", "cats_test", "dogs_train", "dogs_test"], "big small"),
        {"train": "cats dogs", "test": "cats dogs"},
    ),
    "classes of the same parts": (
        ["{ant,bee,cow}/{small,large}/1.png"],
        ["classes large (3), small (3)", "They are the classes, ant (2), bee (2), cow (2)"],
        dict.fromkeys(["ant", "bee", "cow"], "small large"),
        {None: "ant bee cow"},
    ),
    "one lacks a class": (
        ["set1/{cats,dogs}/1.png", "set2/cats/1.png"],
        ["set1, set2"],
        {"set1": "cats dogs", "set2": "cats"},
        {None: "set1 set2"},
    ),
    "unequal depths": (
        ["d/set1/{cats,dogs}/2019/1.png", "d/set2/{cats,dogs}/1.png", "d/set2/x.png"],
        ["cats (2), dogs (2)", "set1 (2), set2 (3)"],
        {"set1": "cats dogs", "set2": "cats dogs -"},
        {None: "set1 set2"},
    ),
    "in splits": (
        ["{train,test}/{images,masks}/{cats,dogs}/1.png"],
        ["The classes are cats (4), dogs (4)", "They are the classes, images (4), masks (4)"],
        {"train": "cats dogs", "test": "cats dogs"},
        {"train": "images masks", "test": "images masks"},
    ),
    "a folder that no split is called": (
        ["{train,test}/{a,b}/1.png", "extra/1.png"],
        ["(1) All are splits", "say in normalize.splits what extra stands for", "(2) All are classes"],
        {"train": "a b", "test": "a b", "extra": "-"},
        {None: "train test extra"},
    ),
    "splits in some classes": (
        ["ant/{train,test}/1.png", "bee/{train,test}/1.png", "cow/1.png"],
        ["received ant with test, train, and cow"],
        {"train": "ant bee", "test": "ant bee", None: "-"},
        {None: "ant bee cow"},
    ),
    "splits in a split": (
        ["train/{train,val}/{a,b}/1.png", "test/{a,b}/1.png"],
        ["They are the splits", "They are classes in a split"],
        {"train": "a b", "val": "a b", "test": "a b"},
        {"train": "train val", "test": "a b"},
    ),
}


@pytest.mark.parametrize(("names", "says", "first", "second"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_stops_and_says_both(
    names: list[str], says: list[str], first: Read, second: Read
) -> None:
    """The `layout` that the message offers for a reading gives that reading."""
    files = expand(*names)
    with pytest.raises(TemperError) as stopped:
        place_by_folders(files, parents(files))
    message = str(stopped.value)
    assert "They can be read in two ways" in message
    assert [part for part in says if part not in message] == []
    offered = [json.loads(layout) for layout in re.findall(r"layout: (\[.*?\])", message)]
    assert len(offered) == 2
    for layout, expected in zip(offered, (first, second), strict=True):
        read = summary(place_by_patterns(files, layout))
        assert read == {split: set(labels.split()) for split, labels in expected.items()}


BOTH = ["{split}/{label}/{name}", "{split}/{name}"]
PATTERNS: dict[str, tuple[list[str], str, Place]] = {
    "split and class folders": (BOTH, "x/train/ant/1.png", ("train", "ant")),
    "a split of any name, nested": (BOTH, "images/images/ant/1.png", ("images", "ant")),
    "a split of loose images": (BOTH, "test/test/1.png", ("test", None)),
    "its case": (BOTH, "Valid/ant/1.png", ("Valid", "ant")),
    "a repeated name in another case": (BOTH, "Test/test/1.png", ("test", None)),
    "a repeated meaning": (BOTH, "test/Test Images/1.png", ("Test Images", None)),
    "classes alone": (["{label}/{name}"], "a/b/ant/1.png", (None, "ant")),
    "a class in the name": (["{split}/{label}.{name}"], "train/cat.0.jpg", ("train", "cat")),
    "a class before the split": (["{label}/{split}/{name}"], "ant/test/1.png", ("test", "ant")),
    "a star": (["{label}/*/{name}"], "ant/2019/1.png", (None, "ant")),
    "a star in a name": (["set*/{label}/{name}"], "set12/ant/1.png", (None, "ant")),
    "folders of any number": (["top/{label}/**/{name}"], "top/ant/2019/05/1.png", (None, "ant")),
    "or of none": (["top/{label}/**/{name}"], "top/ant/1.png", (None, "ant")),
    "a literal": (["big (1)/{label}/{name}"], "big (1)/ant/1.png", (None, "ant")),
    "fits none": (["{split}/{label}/{name}"], "1.png", (None, None)),
}


@pytest.mark.parametrize(("patterns", "name", "expected"), PATTERNS.values(), ids=PATTERNS)
def test_places_by_patterns(patterns: list[str], name: str, expected: Place) -> None:
    places = place_by_patterns([name, "README.md", "other/bee/0.png"], [*patterns, "{split}/{label}/{name}"])
    assert places[name] == expected and "README.md" not in places


def test_patterns_that_fit_nothing_are_refused() -> None:
    with pytest.raises(TemperError, match="expected images that fit .*, found none; the first of 1 images is a/1.png"):
        place_by_patterns(["a/1.png"], ["{split}/{label}/{name}"])


@pytest.mark.parametrize("name", ["dataset" * 36 + "x", "imgimages" * 28, "trainval" * 31 + "y"])
def test_a_name_that_can_be_split_in_countless_ways_is_read_at_once(name: str) -> None:
    """`dataset`, or `data` and `set`, 36 times: the regular expression would try 2**36 ways."""
    begun = time.process_time()
    assert meaning(name) is None
    assert time.process_time() - begun < 0.5
