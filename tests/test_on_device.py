"""Augmentation in the training step: the images that the host would make, and the same bits after a kill (law 5)."""

from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from stages.backbone.architectures import build
from stages.fine_tune.__main__ import epoch_batches, trained_model, what_a_step_computes
from stages.fine_tune.on_device import Augmenting, changed
from stages.warm_up.heads import assemble, build_head
from temper import batches
from temper.augmentation.augment import magnitudes
from temper.devices import Spread
from temper.freezing.classifier import unfreeze
from temper.packs import Pack, PackWriter
from temper.settings.fine_tune import Settings
from temper.settings.warm_up import Head
from tests.toys.fine_tuning import Cut, trained

HEIGHT, WIDTH, BATCH, CLASSES = 24, 32, 8, 3
OFF = dict.fromkeys(("flip", "rotation", "zoom", "translation", "brightness", "contrast", "hue"), 0)
# How far the two may be apart, in levels of 255: on average, and the 99th percentile. Positions are rounded in another
# way; and the host's HSV is in whole numbers.
ROUNDED, OF_HUE = (0.01, 1.0), (1.0, 5.0)
WAYS: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "nothing": (OFF, (0, 0)),
    "flip": (OFF | {"flip": 1}, (0, 0)),
    "vertical flip": (OFF | {"flip": 1, "vertical_flip": 1}, (0, 0)),
    **{
        name: (OFF | {name: 0.3}, ROUNDED)
        for name in ("rotation", "zoom", "translation", "brightness", "contrast", "crop", "grayscale")
    },
    "hue": (OFF | {"hue": 0.3}, OF_HUE),
    "mixup": (OFF | {"mixup": 0.4}, ROUNDED),
    "cutmix": (OFF | {"cutmix": 1.0}, (0, 0)),
    "all": ({"vertical_flip": 1, "crop": 0.5, "grayscale": 0.2, "mixup": 0.2, "cutmix": 1}, OF_HUE),
}


def write_pack(folder: Path, count: int) -> Pack:
    """Photos whose colours change slowly, of classes of unequal size that differ in brightness."""
    labels = np.resize(np.array([0, 0, 0, 0, 1, 1, 2], np.int32), count)
    with PackWriter(folder, np.array([f"{row:016x}" for row in range(count)]), HEIGHT, WIDTH) as writer:
        for row, label in enumerate(labels):
            rough = np.random.default_rng(row).integers(0, 180, (4, 4, 3)).astype(np.uint8) + np.uint8(30 * label)
            writer.append(cv2.resize(rough, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR))
        writer.finish(labels)
    return Pack(folder)


def settings(where: str, augmentation: dict[str, Any], **more: Any) -> Settings:
    fine_tune = {"augment_on": where, "augmentation": augmentation} | more
    values = {"seed": 3, "batch_size": BATCH, "lr": 0.01, "aug": 0.1, "fine_tune": fine_tune}
    return Settings.model_validate(values)


@pytest.mark.parametrize("sampling", ["natural", "balanced"])
@pytest.mark.parametrize("way", WAYS)
def test_the_device_makes_the_images_of_the_host(tmp_path: Path, way: str, sampling: str) -> None:
    augmentation, (mean, most) = WAYS[way]
    pack = write_pack(tmp_path, 33)
    on_host, on_device = (settings(where, augmentation, sampling=sampling) for where in ("host", "device"))
    host, device = (epoch_batches(pack, CLASSES, chosen, 1) for chosen in (on_host, on_device))
    chosen = on_device.fine_tune.augmentation
    changes = []
    for number in range(len(host)):
        expected, targets = host[number]
        (plain, numbers), of_device = device[number]
        assert plain.dtype == np.uint8 and plain.shape == expected.shape and numbers.dtype == np.float32
        assert np.array_equal(of_device, targets)
        ours = keras.ops.convert_to_numpy(changed(plain, numbers, magnitudes(0.1, chosen), chosen.mixes))
        assert np.array_equal(ours, np.rint(ours)) and ours.min() >= 0 and ours.max() <= 255
        difference = np.abs(ours - expected)
        assert difference.mean() <= mean and np.percentile(difference, 99) <= most
        changes.append(not np.array_equal(plain, expected))
    assert any(changes) == (way != "nothing")


def small_classifier() -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = build("tiny", {}, None, (HEIGHT, WIDTH), None)
    classifier = assemble(backbone, build_head(backbone.output_shape[-1], CLASSES, Head(dropout=0.2)))
    unfreeze(classifier, "all", pretrained=False)
    return classifier


def test_without_numbers_it_is_the_classifier(tmp_path: Path) -> None:
    classifier, chosen = small_classifier(), settings("device", {"mixup": 0.2})
    model = trained_model(classifier, chosen)
    assert isinstance(model, Augmenting) and trained_model(classifier, settings("host", {})) is classifier
    assert [id(variable) for variable in model.variables] == [id(variable) for variable in classifier.variables]
    images = write_pack(tmp_path, 8).images(np.arange(8))
    assert np.array_equal(model.predict(images, verbose=0), classifier.predict(images, verbose=0))


@pytest.mark.parametrize("augmentation", [{"hue": 0}, {"hue": 0, "mixup": 0.4}, {"hue": 0, "cutmix": 1}], ids=str)
def test_it_predicts_what_the_classifier_predicts_for_the_images_of_the_host(
    tmp_path: Path, augmentation: dict[str, Any]
) -> None:
    pack, classifier = write_pack(tmp_path, 16), small_classifier()
    on_host, on_device = (settings(where, augmentation) for where in ("host", "device"))
    host, device = (epoch_batches(pack, CLASSES, chosen, 1) for chosen in (on_host, on_device))
    model = trained_model(classifier, on_device)
    for number in range(2):
        images, (inputs, _) = host[number][0], device[number]
        ours, expected, of_plain = model(inputs), classifier(images), classifier(inputs[0])
        assert np.abs(ours - expected).max() < 1e-4 < np.abs(ours - of_plain).max()


@pytest.mark.parametrize("augmentation", [{"hue": 0, "mixup": 0.4}, {"hue": 0, "cutmix": 1}], ids=str)
def test_processes_that_share_a_batch_make_the_images_of_one(
    tmp_path: Path, augmentation: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a batch is filled up for the devices: the last one has 5 images on 4 devices."""
    pack = write_pack(tmp_path, 21)
    host = epoch_batches(pack, CLASSES, settings("host", augmentation), 1)
    chosen = settings("device", augmentation)
    shares = []
    for number in range(2):
        monkeypatch.setattr(batches, "spread", lambda number=number: Spread(4, 2, number))
        shares.append(epoch_batches(pack, CLASSES, chosen, 1))
    magnitude = magnitudes(0.1, chosen.fine_tune.augmentation)
    for number in range(len(host)):
        expected, targets = host[number]
        both = [share[number] for share in shares]
        plain, numbers = (np.concatenate([inputs[part] for inputs, _, _ in both]) for part in (0, 1))
        ours = keras.ops.convert_to_numpy(changed(plain, numbers, magnitude, mixes=True))
        assert len(ours) % 4 == 0 and np.abs(ours[: len(expected)] - expected).max() <= 2
        assert np.array_equal(np.concatenate([of for _, of, _ in both])[: len(expected)], targets)
        weights = np.concatenate([of for _, _, of in both])
        assert weights.tolist() == [1] * len(expected) + [0] * (len(ours) - len(expected))


def test_a_batch_size_that_fits_is_found_anew_for_what_the_device_computes() -> None:
    def computed(where: str, aug: float) -> dict[str, Any]:
        return what_a_step_computes(settings(where, {}).model_copy(update={"aug": aug}))

    assert computed("host", 0) == computed("host", 0.1) != computed("device", 0.1)
    assert computed("device", 0) != computed("device", 0.1) == computed("device", 0.3)


MIXED = {"mixup": 0.2, "cutmix": 1.0, "crop": 0.3}
FURTHER = {"unfreeze_from": "block3", "unfreeze_further": {"name": "every"}}
AVERAGED = {"average": {"name": "ema"}, "precision": "mixed_bfloat16", "sampling": "balanced"}


@pytest.mark.parametrize("more", [{}, FURTHER, AVERAGED], ids=["plain", "opens", "bfloat16, ema, balanced"])
def test_a_fine_tune_that_is_cut_off_ends_in_the_same_bits(in_tmp_path: Path, more: dict[str, Any]) -> None:
    write_pack(Path("data/packed/train"), 33)
    write_pack(Path("data/packed/validation"), 9)
    chosen = settings("device", MIXED, epochs=3, **more)
    expected, weights = trained(small_classifier(), chosen, in_tmp_path / "whole")
    with pytest.raises(Cut):
        trained(small_classifier(), chosen, in_tmp_path / "cut", cut_at=2)
    result, after = trained(small_classifier(), chosen, in_tmp_path / "cut")
    assert result.history == expected.history and len(result.history) == 3
    assert all(map(np.array_equal, after, weights))
    start = small_classifier().get_weights()
    assert any(not np.array_equal(now, then) for now, then in zip(result.last, start, strict=True))
