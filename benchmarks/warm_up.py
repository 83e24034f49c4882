"""Compares an edit of the head alone with `fit` through the frozen backbone, interleaved.

    python -m benchmarks.warm_up ../shared/data/cifar100/cifar-100-python.tar.gz WEIGHTS.h5 [--rounds 3]

The data are CIFAR-100 by coarse labels, enlarged to 96 pixels inside MobileNet (alpha 0.25), for 8 epochs. After a full
run, each round times `dvc exp run warm_up -S warm_up.lr=...` and a script that trains through the frozen backbone, both
as whole commands (including DVC and the import of TensorFlow), and the eight epochs of each alone. WEIGHTS.h5 are
MobileNet's ImageNet weights without its top.
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path

from tests.toys import workspace

EPOCHS = 8


# Heavy imports stay inside the functions that run as processes of their own.


def report(seconds: float, val_accuracies: list[float]) -> None:
    """Writes what eight epochs took, without start and imports, for the process that measures."""
    content = json.dumps({"seconds": seconds, "accuracy": max(val_accuracies)})
    Path("epochs.json").write_text(content, encoding="utf-8")


def fit_through() -> None:
    """Trains a new head by Keras's `fit` through the frozen backbone, in a workspace whose backbone stage has run."""
    import keras  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from stages.warm_up.heads import assemble, build_head  # noqa: PLC0415
    from temper import classes, keras_files  # noqa: PLC0415
    from temper.base import loading  # noqa: PLC0415
    from temper.freezing.classifier import freeze_backbone  # noqa: PLC0415
    from temper.packs import Pack  # noqa: PLC0415
    from temper.settings.warm_up import Settings  # noqa: PLC0415

    settings = loading.load(Settings)
    keras.utils.set_random_seed(settings.seed)
    packs = {split: Pack(f"data/packed/{split}") for split in ("train", "validation")}
    arrays = {split: (pack.images(np.arange(len(pack))), pack.labels) for split, pack in packs.items()}
    backbone = keras_files.load("models/backbone.keras")
    model = assemble(backbone, build_head(backbone.output_shape[-1], len(classes.read()), settings.warm_up.head))
    freeze_backbone(model)
    model.compile(keras.optimizers.Adam(settings.warm_up.lr), "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    logs = model.fit(
        *arrays["train"],
        batch_size=settings.batch_size,
        epochs=EPOCHS,
        validation_data=arrays["validation"],
        verbose=0,
    ).history
    report(time.perf_counter() - start, logs["val_accuracy"])


def fit_head() -> None:
    """Runs the phase as the stage `warm_up` does, saving included, in a workspace whose embed stage has run."""
    import keras  # noqa: PLC0415

    from stages.warm_up.__main__ import train_head  # noqa: PLC0415
    from stages.warm_up.heads import build_head  # noqa: PLC0415
    from temper import card, classes, keras_files  # noqa: PLC0415
    from temper.base import loading  # noqa: PLC0415
    from temper.settings.warm_up import Settings  # noqa: PLC0415

    settings = loading.load(Settings)
    keras.utils.set_random_seed(settings.seed)
    made = card.Card(
        classes=classes.read(),
        preparation=card.read_preparation(),
        backbone=card.read_backbone("models/backbone.keras"),
    )
    backbone = keras_files.load("models/backbone.keras")
    head = build_head(backbone.output_shape[-1], len(made.classes), settings.warm_up.head)
    start = time.perf_counter()
    history = train_head(backbone, head, made, settings).history
    report(time.perf_counter() - start, [record["val_accuracy"] for record in history])


def compare(archive: Path, weights: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        changes = {
            "fetch__cifar100__archive": str(archive.resolve()),
            "fetch__cifar100__sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
            "backbone__name": "MobileNet",
            "backbone__arguments": {"alpha": 0.25},
            "backbone__weights": str(weights.resolve()),
            "backbone__input_size": 96,
            "embed__views": 1,
            "warm_up": {"epochs": EPOCHS, "lr": 0.001},
        }
        workspace.make(folder, "cifar100", **changes)
        workspace.run(folder, "dvc repro")
        workspace.run(folder, "git add -A")
        workspace.run(folder, "git commit -qm first")
        ratios: dict[str, list[float]] = {"whole commands": [], "epochs alone": []}
        for number in range(rounds):
            edit = workspace.run(folder, f"dvc exp run warm_up -S warm_up.lr={0.001 + 0.00001 * (number + 1):.5f}")
            through = workspace.run(folder, "python -m benchmarks.warm_up --part fit_through")
            theirs = json.loads((folder / "epochs.json").read_text(encoding="utf-8"))
            workspace.run(folder, "python -m benchmarks.warm_up --part fit_head")
            ours = json.loads((folder / "epochs.json").read_text(encoding="utf-8"))
            ratios["whole commands"].append(edit / through)
            ratios["epochs alone"].append(ours["seconds"] / theirs["seconds"])
            print(
                f"head on embeddings: dvc exp run {edit:.1f} s, its {EPOCHS} epochs {ours['seconds']:.1f} s, accuracy "
                f"{ours['accuracy']:.4f}; fit through the backbone: {through:.1f} s, its {EPOCHS} epochs "
                f"{theirs['seconds']:.1f} s, accuracy {theirs['accuracy']:.4f}"
            )
        for what, values in ratios.items():
            print(f"median ratio of the {what}: {statistics.median(values):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=["fit_through", "fit_head"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        {"fit_through": fit_through, "fit_head": fit_head}[arguments.part]()
    else:
        compare(arguments.archive, arguments.weights, arguments.rounds)
