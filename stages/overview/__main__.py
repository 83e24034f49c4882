"""overview: what the stages measured -> metrics/overview/, the page of `dvc plots show`.

Draws the picture at the top of the page (summary.svg) and sheets of single images (pictures/), and writes a table for
each chart. It computes nothing expensive, so a change to the look of the page takes a second.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

import importlib
from pathlib import Path

from stages.overview import charts, pictures
from stages.overview.results import Results, read_results
from stages.overview.summary import Setup, draw
from temper import card
from temper.base import running
from temper.base.atomic import atomic_folder
from temper.base.texts import write_csv
from temper.settings.overview import Settings


def chart_tables(results: Results) -> dict[str, charts.Table]:
    """The table of each chart, by its file name; dvc.yaml has the title and the template of each chart."""
    return {
        "accuracy.csv": charts.curve_table(results.phases, "accuracy"),
        "loss.csv": charts.curve_table(results.phases, "loss"),
        "learning_rate.csv": charts.rate_table(results.phases),
        "figures.csv": charts.figure_table(results),
        "reliability.csv": charts.reliability_table(results),
        "roc.csv": charts.roc_table(results),
        "precision_recall.csv": charts.precision_recall_table(results),
        "classes.csv": charts.class_table(results.classes),
        "confusion_matrix.csv": charts.confusion_table(results.classes),
        "confusions.csv": charts.confusions_table(results.classes),
        "images.csv": charts.image_table(results.classes),
        "shorter_sides.csv": charts.side_table(results.shorter_sides),
    }


def write_overview(folder: Path, setup: Setup, results: Results) -> None:
    """Writes the picture and the tables into a folder, which is created if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.svg").write_text(draw(setup, results), encoding="utf-8")
    for name, (columns, rows) in chart_tables(results).items():
        write_csv(folder / name, columns, rows)


def main(settings: Settings) -> None:
    made = card.read("models/fine_tune.keras")
    size = (made.preparation.height, made.preparation.width)
    setup = Setup(" and ".join(settings.fetch), size, made.backbone.name, made.backbone.weights)
    results = read_results()
    with atomic_folder("metrics/overview") as folder:
        write_overview(folder, setup, results)
        pictures.write(folder / "pictures", made.classes)
    print(f"{setup.headline}: accuracy {results.test['accuracy']:.4g}; dvc plots show draws it all on one page")
    # Imported by name, so that the module is no dependency of this stage: trackers change nothing that a stage writes.
    importlib.import_module("temper.tracking.hooks").report()


if __name__ == "__main__":
    running.run(main, Settings)
