"""Toys of published datasets, in the exact layout of each."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from tests.toys.photos import toy_photo


def tgz(files: dict[str, bytes]) -> bytes:
    """A gzipped tar of these files, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of these files, the same bytes each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def kaggle_four_classes(train: int = 24, validation: int = 8, test: int = 5) -> dict[str, bytes]:
    """The three files of duttadebadri/image-classification, with the names that its splits do not agree on."""
    names = {
        "images": ["architecure", "art and culture", "food and d rinks", "travel and  adventure"],
        "validation": ["architecture", "art and culture", "food", "travel and adventure"],
    }
    archives = {}
    for split, count in (("images", train), ("validation", validation)):
        archives[f"{split}.zip"] = zipped(
            {
                f"{split}/{name}/{number}.jpg": toy_photo(label, number + 1000 * (split == "images"), 40, ".jpg")
                for label, name in enumerate(names[split])
                for number in range(count)
            }
        )
    photos = {f"test/{number}.jpg": toy_photo(number % 4, 5000 + number, 40, ".jpg") for number in range(test)}
    return {**archives, "test.zip": zipped(photos)}


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Acura TL Sedan 2012"]


def stanford_cars(folder: Path, train: int = 20, test: int = 8, labelled_test: bool = True) -> Path:
    """cars_train, cars_test and the devkit, as they unpack; the devkit's numbers count from 1."""
    annotations: dict[str, list[tuple[Any, ...]]] = {}
    for split, count in (("train", train), ("test", test)):
        (folder / f"cars_{split}").mkdir(parents=True)
        annotations[split] = []
        for number in range(count * len(CARS)):
            label, name = number % len(CARS), f"{number + 1:05}.jpg"
            photo = toy_photo(label, number + 1000 * (split == "test"), 48, ".jpg")
            (folder / f"cars_{split}" / name).write_bytes(photo)
            annotations[split].append((5, 9, 44, 40, label + 1, name))
    devkit = folder / "devkit"
    devkit.mkdir()
    savemat(devkit / "cars_meta.mat", {"class_names": np.array([CARS], dtype=object)})
    write_annotations(devkit / "cars_train_annos.mat", annotations["train"])
    write_annotations(devkit / "cars_test_annos.mat", annotations["test"], labelled=False)
    if labelled_test:
        write_annotations(folder / "cars_test_annos_withlabels.mat", annotations["test"])
    return folder


def write_annotations(path: Path, rows: list[tuple[Any, ...]], labelled: bool = True) -> None:
    """A .mat file with a struct array of 1 x N, as the devkit has them."""
    names = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    if not labelled:
        names.remove("class")
        rows = [(*row[:4], row[5]) for row in rows]
    structs = np.zeros((1, len(rows)), dtype=[(name, object) for name in names])
    for number, row in enumerate(rows):
        structs[0, number] = row
    savemat(path, {"annotations": structs})


BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]


def cub(train: int = 20, test: int = 8) -> bytes:
    """CUB_200_2011.tgz, with the order of its members: photos before the tables that name them."""
    photos, tables = {}, dict.fromkeys(("images", "image_class_labels", "train_test_split", "bounding_boxes"), "")
    for number in range((train + test) * len(BIRDS)):
        label = number % len(BIRDS)
        name = f"{BIRDS[label]}/{BIRDS[label][4:]}_{number:04}_79.jpg"
        photos[f"CUB_200_2011/images/{name}"] = toy_photo(label, number, 40, ".jpg")
        tables["images"] += f"{number + 1} {name}\n"
        tables["image_class_labels"] += f"{number + 1} {label + 1}\n"
        tables["train_test_split"] += f"{number + 1} {int(number < train * len(BIRDS))}\n"
        tables["bounding_boxes"] += f"{number + 1} 4.0 6.0 30.0 25.0\n"
    tables["classes"] = "".join(f"{number + 1} {name}\n" for number, name in enumerate(BIRDS))
    texts = {f"CUB_200_2011/{name}.txt": text.encode() for name, text in tables.items()}
    return tgz({"attributes.txt": b"1 has_bill_shape::curved\n", "CUB_200_2011/README": b"read me", **photos, **texts})


BREEDS = ["boston_bull", "dingo"]


def competition(folder: Path, per_class: int = 24, test: int = 7) -> Path:
    """A competition as it unpacks: train.csv names the photos of train/ without their endings; test/ has no labels."""
    rows = ["id,label"]
    for split, count in (("train", per_class * len(BREEDS)), ("test", test)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            label, name = number % len(BREEDS), f"{number + 1000 * (split == 'test'):032x}"
            (folder / split / f"{name}.jpg").write_bytes(
                toy_photo(label, number + 1000 * (split == "test"), 40, ".jpg")
            )
            if split == "train":
                rows.append(f"{name},{BREEDS[label]}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "sample_submission.csv").write_text("id,boston_bull,dingo\n", encoding="utf-8")
    return folder


def flowers(per_class: int = 24) -> bytes:
    """flower_photos.tgz: five class folders, and LICENSE.txt beside them."""
    names = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    photos = {
        f"flower_photos/{name}/{label}{number:06}_a1b2c3.jpg": toy_photo(label, number, 40, ".jpg")
        for label, name in enumerate(names)
        for number in range(per_class)
    }
    return tgz({"flower_photos/LICENSE.txt": b"All images are CC-BY", **photos})


def cifar100(train: int = 24, test: int = 8) -> bytes:
    """cifar-100-python.tar.gz: protocol-2 pickles with bytes for keys, cut to four fine and two coarse classes."""
    files = {}
    for split, count in (("train", train), ("test", test)):
        numbers = range(4 * count)
        rows = [_cifar_row(number % 4, number + 10_000 * (split == "test")) for number in numbers]
        files[f"cifar-100-python/{split}"] = pickle.dumps(
            {
                b"filenames": [f"thing_s_{number:06}.png".encode() for number in numbers],
                b"batch_label": b"batch 1 of 1",
                b"fine_labels": [number % 4 for number in numbers],
                b"coarse_labels": [number % 4 // 2 for number in numbers],
                b"data": np.stack(rows),
            },
            2,
        )
    fine, coarse = [b"apple", b"pear", b"bee", b"wasp"], [b"fruit", b"insects"]
    files["cifar-100-python/meta"] = pickle.dumps({b"fine_label_names": fine, b"coarse_label_names": coarse}, 2)
    return tgz(files)


def _cifar_row(label: int, number: int) -> Any:
    pixels = np.random.default_rng(number).integers(0, 120, (3, 32, 32)).astype(np.uint8)
    pixels[label % 3, label // 2 * 16 : label // 2 * 16 + 16] += 100
    return pixels.reshape(-1)
