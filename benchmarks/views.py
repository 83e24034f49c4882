"""Compares an epoch of the fine-tune on stored views with one through the whole backbone, in turn in one process.

    python -m benchmarks.views [--start block_12] [--photos 320] [--epochs 5] [--rounds 2]

The model is MobileNetV2 (alpha 0.35, random weights) at 224 pixels, on random pixels with `aug` 0.1, in batches of 16.
Prints the processor time of an epoch without validation (the median of all epochs but the first of each round, in which
TensorFlow traces), the cost of storing the views once, and the size of a view on disk.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

import keras
import numpy as np

from stages.activations import frozen
from stages.backbone.architectures import build
from stages.boundary import boundary_of
from stages.fine_tune.__main__ import material, plan, trained_model
from stages.warm_up.heads import assemble, build_head
from temper import card, keras_files
from temper.batches import Batches
from temper.freezing.classifier import unfreeze
from temper.packs import PackWriter
from temper.settings import boundary
from temper.settings.fine_tune import Settings
from temper.settings.warm_up import Head
from temper.training import phases

SIDE, CLASSES, VIEWS = 224, 5, 2


def write_pack(split: str, count: int) -> None:
    random = np.random.default_rng(count)
    image_ids = np.array([f"{number:016x}" for number in random.integers(0, 2**63, count)], "U16")
    with PackWriter(Path("data/packed") / split, image_ids, SIDE, SIDE) as writer:
        for _ in range(count):
            writer.append(random.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
        writer.finish((np.arange(count) % CLASSES).astype(np.int32))


def epochs(settings: Settings, count: int) -> list[float]:
    """The processor seconds of training for each epoch except the first."""
    backbone = keras_files.load("models/backbone.keras")
    classifier = assemble(backbone, build_head(backbone.output_shape[-1], CLASSES, Head()))
    unfreeze(classifier, settings.fine_tune.unfreeze_from, pretrained=True)
    of = material(classifier, CLASSES, settings)
    model = trained_model(of.model, settings)
    phases._compile(model, plan(classifier, settings, True, of.labels, CLASSES), None)
    return [seconds(model, of.training(epoch)) for epoch in range(count + 1)][1:]


def seconds(model: keras.Model, batches: Batches) -> float:
    start = time.process_time()
    model.fit(batches, shuffle=False, verbose=0)
    return time.process_time() - start


def main(start: str, photos: int, count: int, rounds: int) -> None:
    values: dict[str, Any] = {"seed": 0, "batch_size": 16, "lr": 3e-4, "aug": 0.1}

    def parsed(views: int) -> dict[str, Any]:
        return values | {"fine_tune": {"unfreeze_from": start, "views": views, "lr_decay": 0.8}}

    with tempfile.TemporaryDirectory() as name, chdir(name):
        write_pack("train", photos)
        write_pack("validation", 16)
        backbone = build("MobileNetV2", {"alpha": 0.35}, None, (SIDE, SIDE), None)
        made = card.Backbone(name="MobileNetV2", arguments={"alpha": 0.35}, weights="imagenet", sha256=None)
        keras_files.save(backbone, "models/backbone.keras", made.as_entry())
        begun = time.process_time()
        frozen.write_activations(boundary_of(boundary.Settings.model_validate(parsed(VIEWS))))
        stored = 1000 * (time.process_time() - begun) / (VIEWS * photos + 16)
        each: dict[int, list[float]] = {0: [], VIEWS: []}
        for _ in range(rounds):
            for views, measured in each.items():
                measured += epochs(Settings.model_validate(parsed(views)), count)
    whole, on_stored = ([1000 * one / photos for one in each[views]] for views in each)
    for words, figures in (("whole", whole), ("stored views", on_stored)):
        print(f"{words:<13}{statistics.median(figures):6.2f} ms an image ({min(figures):.2f} to {max(figures):.2f})")
    print(f"ratio        {statistics.median(on_stored) / statistics.median(whole):6.2f}")
    print(f"to store     {stored:6.2f} ms a view, once, tracing included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", default="block_12")
    parser.add_argument("--photos", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    main(chosen.start, chosen.photos, chosen.epochs, chosen.rounds)
