"""Measures the test accuracy of a recipe over several seeds, and the effect of params on it.

    python -m benchmarks.accuracy flowers --seeds 5 --source "{source: folder, path: /photos/flowers.zip}"
    python -m benchmarks.accuracy flowers --seeds 3 --vary lr=1e-5,3e-4 fine_tune.lr_decay=1,0.8
    python -m benchmarks.accuracy flowers --seeds 3 --set normalize.max_per_class=15 --logistic

Each seed draws its own split. The figures are test accuracies, with 95 % intervals of the mean (Student's t);
differences are paired by seed. `kept` is the number of seeds at which the fine-tuned weights, or those halfway to them,
were kept. `--logistic` adds scikit-learn's logistic regression on the plain embeddings of the same backbone, with its
strength chosen by the validation loss; it shows what a head alone can reach.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from tests.toys import workspace

Figures = dict[str, float]


def assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key, and creates missing sections."""
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def pairs(texts: list[str]) -> Iterator[tuple[str, str]]:
    """`["a.b=1"]` as ("a.b", "1"), ..."""
    for text in texts:
        key, _, value = text.partition("=")
        yield key, value


def combinations(varied: list[str]) -> list[dict[str, Any]]:
    """Every combination of the values of `key=value,value,...`."""
    options = [[(key, number(value)) for value in values.split(",")] for key, values in pairs(varied)]
    return [dict(chosen) for chosen in itertools.product(*options)]


def number(text: str) -> Any:
    """Parses a value as in params.yaml; needed because PyYAML reads `1e-5` as text."""
    try:
        return float(text) if "e" in text else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)


def logistic_accuracy() -> None:
    """Prints the test accuracy of a logistic regression on embeddings, in a workspace whose pipeline has run."""
    import numpy as np  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.metrics import log_loss  # noqa: PLC0415

    from temper import keras_files  # noqa: PLC0415
    from temper.batches import INFERENCE_BATCH, Batches  # noqa: PLC0415
    from temper.packs import Pack  # noqa: PLC0415

    backbone = keras_files.load("models/backbone.keras")
    inputs, labels = {}, {}
    for split in ("train", "validation", "test"):
        pack = Pack(f"data/packed/{split}")
        batches = Batches(pack.images, None, np.arange(len(pack)), INFERENCE_BATCH)
        inputs[split], labels[split] = backbone.predict(batches, verbose=0), pack.labels
    best, accuracy = float("inf"), 0.0
    for strength in np.logspace(-3, 2, 11):
        model = LogisticRegression(C=strength, max_iter=1000).fit(inputs["train"], labels["train"])
        loss = log_loss(labels["validation"], model.predict_proba(inputs["validation"]), labels=model.classes_)
        if loss < best:
            best, accuracy = loss, float(model.score(inputs["test"], labels["test"]))
    Path("logistic.json").write_text(json.dumps(accuracy), encoding="utf-8")


def one_run(folder: Path, values: dict[str, Any], with_logistic: bool) -> Figures:
    """Runs the pipeline with these params; test accuracies by name, and in `kept` 1 if any fine-tuned weights were."""
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    workspace.run(folder, "dvc repro evaluate")
    metrics = json.loads((folder / "metrics/evaluate/metrics.json").read_text(encoding="utf-8"))
    fine_tune = json.loads((folder / "metrics/fine_tune/metrics.json").read_text(encoding="utf-8"))
    figures = {
        "images": metrics["test_images"],
        "warm_up": metrics["warm_up_accuracy"],
        "fine_tune": metrics["accuracy"],
        "kept": float(fine_tune["fine_tune_epoch"] > 0),
    }
    if with_logistic:
        workspace.run(folder, "python -m benchmarks.accuracy --part logistic")
        figures["logistic"] = json.loads((folder / "logistic.json").read_text(encoding="utf-8"))
    return figures


def interval(values: list[float]) -> str:
    """The mean with the half-width of its 95 % interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.4f} ± {half:.4f}"


def report(name: str, runs: list[Figures]) -> None:
    columns = {key: [run[key] for run in runs] for key in runs[0]}
    print(f"\n{name or 'as the recipe says'}: {min(columns['images']):.0f} to {max(columns['images']):.0f} test images")
    for key in ("warm_up", "fine_tune", "logistic"):
        if key in columns:
            each = ", ".join(f"{value:.4f}" for value in columns[key])
            print(f"  {key:<10} {interval(columns[key])}   ({each})")
    gain = [tuned - start for tuned, start in zip(columns["fine_tune"], columns["warm_up"], strict=True)]
    print(f"  gain       {interval(gain)}   kept at {sum(columns['kept']):.0f} of {len(runs)} seeds", flush=True)


def compare(recipe: str, seeds: int, source: str | None, fixed: list[str], varied: list[str], logistic: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace.make(folder, recipe)
        values = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        if source:
            values["fetch"] = {"photos": yaml.safe_load(source)}
        for key, value in pairs(fixed):
            assign(values, key, number(value))
        runs: dict[str, list[Figures]] = {}
        for seed in range(seeds):  # seeds outside: the combinations of one share its packs and embeddings
            for combination in combinations(varied):
                for key, value in (combination | {"seed": seed}).items():
                    assign(values, key, value)
                title = ", ".join(f"{key}={value}" for key, value in combination.items())
                runs.setdefault(title, []).append(one_run(folder, values, logistic))
                print(f"seed {seed} {title}: {runs[title][-1]}", file=sys.stderr, flush=True)
        for title, figures in runs.items():
            report(title, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", help="the name of a file in recipes/, without .yaml")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--source", help="a mapping to take the place of the recipe's source")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys that every run has")
    parser.add_argument("--vary", nargs="*", default=[], metavar="KEY=V1,V2", help="keys that are compared")
    parser.add_argument("--logistic", action="store_true")
    parser.add_argument("--part", choices=["logistic"], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        logistic_accuracy()
    elif chosen.recipe:
        compare(chosen.recipe, chosen.seeds, chosen.source, chosen.set, chosen.vary, chosen.logistic)
    else:
        parser.error("expected the name of a recipe")
