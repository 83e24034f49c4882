"""overview: the picture on top, the tables of the charts, and the page that a browser makes of them."""

import csv
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from stages.overview import charts, picture, summary
from stages.overview.__main__ import write_overview
from stages.overview.results import ClassScore, Phase, Results, read_results
from temper.base.errors import TemperError
from tests.toys.workspace import ROOT

SETUP = summary.Setup("flowers", (224, 224), "MobileNetV2", "imagenet")
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PICTURES = "metrics/overview/pictures"  # a folder of them
PLOTS = {path: settings for plot in STAGES["overview"]["plots"] if plot != PICTURES for path, settings in plot.items()}
STRANGE = [
    "</script><script>document.title = 'broken'</script>",
    "<!--<script>",
    'a,b "c"',
    "{refresh_tag} & <DVC_METRIC_TITLE>",
    "🦊 fox",
    "北方的狐狸" * 6,
    "Leucophaeus atricilla, a laughing gull of the western coast.",
    "back\\slash 'and' `tick`",
]


def phase(name: str, epochs: int, rate: float) -> Phase:
    """A phase that gets better with every epoch."""
    curves = {
        (split, measure): {epoch: start + epoch / (10 * epochs) for epoch in range(1, epochs + 1)}
        for split, measure, start in (
            ("validation", "accuracy", 0.6),
            ("validation", "loss", 0.2),
            ("train", "accuracy", 0.7),
            ("train", "loss", 0.1),
        )
    }
    return Phase(name, curves, dict.fromkeys(range(1, epochs + 1), rate), epochs, epochs, 0.7, 1234)


def score(name: str, tested: int, taken_for: dict[str, int] | None = None, f1: float | None = None) -> ClassScore:
    taken = taken_for or {}
    right = tested - sum(taken.values())
    recall = right / tested if tested else 0.0
    images = {"train": 3 * tested, "validation": tested, "test": tested}
    return ClassScore(name, recall, recall, recall if f1 is None else f1, images, tested, right, taken)


def results(names: Sequence[str], mistakes: bool = True, epochs: tuple[int, int] = (3, 2)) -> Results:
    """Every third class is taken for the next one, more often the later it comes."""
    classes = [
        score(
            name,
            10 + place,
            {names[place + 1]: 1 + place % 9} if mistakes and place % 3 == 0 and place + 1 < len(names) else {},
        )
        for place, name in enumerate(names)
    ]
    tested, right = sum(one.tested for one in classes), sum(one.right for one in classes)
    data = {"images": 5 * tested, "classes": len(names), "train": 3 * tested, "validation": tested, "test": tested}
    test = {"accuracy": right / tested, "macro_f1": right / tested, "loss": 0.001, "test_images": tested}
    phases = [phase("warm-up", epochs[0], 1e-3), phase("fine-tune", epochs[1], 1e-5)]
    test |= {f"warm_up_{name}": 0.9 * test[name] for name in ("accuracy", "macro_f1")}
    sides = [("128-255", 3), ("64-127", 2), ("4096-", 1)]
    bounds = {name: {"low": 0.9 * value, "high": min(1.05 * value, 1)} for name, value in test.items() if value <= 1}
    bins = [
        {"probabilities": of, "confidence": f"{at}", "accuracy": f"{at}", "low": "0.1", "high": "1", "images": "9"}
        for of in ("as predicted", "scaled")
        for at in (0.3, 0.9)
    ]
    curves = [
        {"class_name": name, "recall": f"{at}", "false_positives": f"{at / 2}", "precision": f"{1 - at / 2}"}
        for name in names
        for at in (0.0, 0.5, 1.0)
        if len(names) <= 10
    ]
    return Results(phases, data, test, classes, sides, bounds, bins, curves)


def birds(count: int) -> list[str]:
    return [f"bird {number:03}" for number in range(count)]


# The tables of the charts


def test_the_fine_tune_goes_on_where_the_warm_up_ended() -> None:
    columns, rows = charts.curve_table([phase("warm-up", 2, 0.1), phase("fine-tune", 3, 0.01)], "accuracy")
    validation = [dict(zip(columns, row, strict=True)) for row in rows if "validation" in row]
    assert [row["epoch"] for row in validation] == [1, 2, 3, 4, 5]
    assert [row["phase"] for row in validation] == ["warm-up"] * 2 + ["fine-tune"] * 3
    assert [row["epoch"] for row in validation if row["kept"] == "yes"] == [2, 5]
    assert [row["accuracy"] for row in validation[:2]] == ["0.65", "0.7"]
    assert len(rows) == 2 * len(validation)
    _, rates = charts.rate_table([phase("warm-up", 1, 1e-3), phase("fine-tune", 2, 3e-6)])
    assert rates == [(1, "warm-up", "0.001"), (2, "fine-tune", "3e-06"), (3, "fine-tune", "3e-06")]


def test_the_worst_class_comes_first_and_the_unmeasured_last() -> None:
    classes = [score("right", 5), score("untested", 0), score("half", 4, {"right": 2}), score("never", 3, {"half": 3})]
    _, rows = charts.class_table(classes)
    assert [row[1] for row in rows] == ["never", "half", "right", "untested"]
    assert rows[0] == (1, "never", "0", "0", "0", 3, 0, 9, "half", 3, "0", "1")
    assert rows[-1][2:5] == ("", "", "")


@pytest.mark.parametrize(("count", "cells", "listed"), [(2, 4, 0), (30, 900, 0), (31, 0, 10), (196, 0, 30)])
def test_confusions_are_a_matrix_where_it_fits_and_a_list_elsewhere(count: int, cells: int, listed: int) -> None:
    classes = results(birds(count)).classes
    assert len(charts.confusion_table(classes)[1]) == cells
    confusions = charts.confusions_table(classes)[1]
    assert len(confusions) == listed
    images = [int(str(row[3])) for row in confusions]
    assert images == sorted(images, reverse=True)


def test_a_run_without_mistakes_has_no_confusion() -> None:
    assert charts.confusions_table(results(birds(40), mistakes=False).classes)[1] == []


def test_sizes_are_sorted_as_numbers() -> None:
    rows = charts.side_table([("1024-2047", 1), ("64-127", 2), ("128-255", 3), ("4096-", 4)])[1]
    assert [row[1] for row in rows] == ["64-127", "128-255", "1024-2047", "4096-"]


@pytest.mark.parametrize("name", STRANGE)
def test_no_name_can_end_the_script_that_dvc_writes_it_into(name: str) -> None:
    shown = charts.harmless(name)
    assert not re.search(r"</|<!|<script|\{refresh_tag\}|<DVC", shown)
    assert shown.replace(charts.WORD_JOINER, "") == name


def test_figures_come_with_their_intervals_from_both_models_and_splits() -> None:
    rows = charts.figure_table(results(birds(3)))[1]
    assert [row[1:4] for row in rows] == [
        (figure, model, "test") for figure in ("accuracy", "macro F1") for model in ("fine-tuned", "warm-up")
    ]
    assert all(float(str(row[5])) < float(str(row[4])) <= float(str(row[6])) for row in rows)


def test_curves_are_drawn_where_they_can_be_told_apart() -> None:
    assert len(charts.roc_table(results(birds(10)))[1]) == 30
    assert charts.precision_recall_table(results(birds(10)))[1][1] == (1, "bird 000", "0.5", "0.75")
    assert charts.roc_table(results(birds(11)))[1] == []


# The picture on top


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0.0%"), (1, "100.0%"), (0.5, "50.0%"), (0.9996, "99.96%"), (0.0004, "0.04%"), (0.8155, "81.5%")],
)
def test_percent_never_rounds_to_all_or_nothing(share: float, shown: str) -> None:
    assert summary.percent(share) == shown


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_says_what_was_trained_on_what_and_what_fails() -> None:
    said = words(summary.draw(SETUP, results(birds(40))))
    assert said[0] == "MobileNetV2 on flowers"
    for expected in ("Warm-up: accuracy on validation", "epoch 2 of 2 was kept", "The 8 classes that fail most"):
        assert expected in said
    assert "13 of 40 classes with mistakes" in " ".join(said)
    assert sum(line.startswith("F1 ") for line in said) == summary.MOST_FAILING


def test_the_picture_says_where_the_fine_tune_brought_nothing() -> None:
    of_birds = results(birds(3))
    fine_tune = replace(of_birds.phases[1], kept=0)
    said = words(summary.draw(SETUP, replace(of_birds, phases=[of_birds.phases[0], fine_tune])))
    assert {"no epoch of 2 was better", "the warm-up's weights were kept"} <= set(said)
    phases = [of_birds.phases[0], replace(fine_tune, refused=True)]
    assert "no epoch of 2 was clearly better" in words(summary.draw(SETUP, replace(of_birds, phases=phases)))


def test_the_picture_says_where_the_fine_tune_was_kept_halfway() -> None:
    of_birds = results(birds(3))
    phases = [of_birds.phases[0], replace(of_birds.phases[1], halfway=True)]
    said = words(summary.draw(SETUP, replace(of_birds, phases=phases)))
    assert "halfway to epoch 2 was kept" in said and "+0.0 points over the warm-up" in said
    columns, rows = charts.curve_table(phases, "accuracy")
    kept = [row for row in rows if dict(zip(columns, row, strict=True))["kept"] == "yes"]
    assert [row[1] for row in kept] == ["warm-up"], "no point of the curve belongs to the weights that were kept"


def test_the_start_of_the_fine_tune_stands_where_the_warm_up_ended() -> None:
    fine_tune = phase("fine-tune", 2, 0.01)
    curves = {**fine_tune.curves, ("validation", "accuracy"): {0: 0.5, 1: 0.6, 2: 0.7}}
    phases = [phase("warm-up", 3, 0.1), replace(fine_tune, curves=curves, kept=0)]
    rows = charts.curve_table(phases, "accuracy")[1]
    validation = [row for row in rows if row[1:3] == ("fine-tune", "validation")]
    assert validation[0] == (3, "fine-tune", "validation", "0.5", "yes") and len(validation) == 3


def test_the_picture_of_a_run_without_mistakes() -> None:
    said = words(summary.draw(SETUP, results(birds(196), mistakes=False)))
    assert said[-1] == "Every test image is classified correctly."


def test_strange_names_are_whole_in_the_picture_and_leave_it_valid() -> None:
    names = [name for strange in STRANGE for name in (strange, f"other than {STRANGE.index(strange)}", "third")][:-2]
    said = "".join(words(summary.draw(SETUP, results([*names, "bell \x07"])))).replace(" ", "")
    for name in ('a,b"c"', "</script><script>document.title='broken'</script>", "北方的狐狸" * 6):
        assert name in said
    assert words(picture.svg(1, "\x00", [picture.text(0, 0, "bell \x07", 1)])) == ["bell \ufffd"]


def test_equal_results_give_equal_bytes(tmp_path: Path) -> None:
    """Law 10."""
    for name in ("first", "second"):
        write_overview(tmp_path / name, SETUP, results(birds(40)))
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second")
    )
    assert first == second
    assert set(first) == {Path(path).name for path in PLOTS}, "dvc.yaml declares what is written"


# What is read


def write_metrics(root: Path) -> None:
    """What the other stages write, for two classes."""
    for name in ("warm_up", "fine_tune"):
        folder = root / name / "plots/metrics"
        for split in ("train", "validation"):
            (folder / split).mkdir(parents=True)
            for measure in ("accuracy", "loss"):
                (folder / split / f"{measure}.tsv").write_text(f"step\t{measure}\n1\t0.5\n2\t0.25\n")
        (folder / "learning_rate.tsv").write_text("step\tlearning_rate\n1\t0.001\n2\t0.0005\n")
        figures = {"epoch": 2, "epochs": 2, "best_val_accuracy": 0.5, "trainable_parameters": 9}
        written = json.dumps({f"{name}_{key}": value for key, value in figures.items()})
        (root / name / "metrics.json").write_text(written)
    tables = {
        "normalize/classes.csv": "class_name,train,validation,test,images\n0012,6,1,3,10\nb,7,1,2,10\n",
        "normalize/sizes.csv": "shorter_side,images\n16-31,20\n",
        "normalize/metrics.json": '{"images": 20, "classes": 2, "train": 13, "validation": 2, "test": 5}',
        "evaluate/per_class.csv": "class_name,precision,recall,f1,f1_low,f1_high,images\n"
        "0012,1,0.6667,0.8,0.4,0.9,3\nb,0.6667,1,0.8,0.4,0.9,2\n",
        "evaluate/reliability.csv": "probabilities,above,up_to,images,confidence,accuracy,low,high\n",
        "evaluate/curves.csv": "class_name,recall,false_positives,precision\n0012,0,0,1\n",
        "evaluate/intervals.json": '{"accuracy": {"low": 0.4, "high": 0.96}}',
        "evaluate/confusion.csv": "actual,predicted\n0012,0012\n0012,b\nb,b\nb,b\n0012,0012\n",
        "evaluate/metrics.json": '{"accuracy": 0.8, "macro_f1": 0.8, "loss": 0.5, "test_images": 5}',
    }
    for name, content in tables.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)


def test_results_are_read_from_what_the_stages_wrote(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    read = read_results(tmp_path)
    assert [phase.name for phase in read.phases] == ["warm-up", "fine-tune"]
    assert (read.phases[0].epochs, read.phases[0].kept, read.phases[0].accuracy) == (2, 2, 0.5)
    first, second = read.classes
    assert first.f1_interval == (0.4, 0.9) and read.intervals["accuracy"]["high"] == 0.96
    assert (first.name, first.tested, first.right, first.most_taken_for) == ("0012", 3, 2, ("b", 1))
    assert (second.right, second.most_taken_for, second.images["train"]) == (2, None, 7)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    (tmp_path / "evaluate/per_class.csv").unlink()
    with pytest.raises(TemperError, match="per_class.csv.*run dvc repro"):
        read_results(tmp_path)


# The page


def test_every_chart_has_a_template_and_a_title_in_plain_words() -> None:
    for path, settings in PLOTS.items():
        if path.endswith(".csv"):
            template = json.loads((ROOT / f".dvc/plots/{settings['template']}.json").read_text(encoding="utf-8"))
            assert "<DVC_METRIC_DATA>" in str(template) and "<DVC_METRIC_TITLE>" in str(template)
            assert "/" not in settings["title"] and "_" not in settings["title"]
    titles = [settings["title"] for settings in PLOTS.values() if "title" in settings]
    assert len(set(titles)) == len(titles)


class Page(HTMLParser):
    """What a reader sees: headings, charts, pictures, text; scripts are left out."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.text: list[str] = []
        self.marks: list[str] = []  # what each bar, line and point says of itself, chart by chart
        self.charts = self.pictures = self.rows = 0
        self.inside: list[str] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.inside.append(tag)
        self.charts += tag == "svg" and attributes.get("class") == "marks"
        self.pictures += tag == "img"
        if attributes.get("aria-roledescription") in ("bar", "point", "line mark", "rect mark"):
            self.marks.append(f"{self.charts}: {attributes.get('aria-label')}")
        self.rows += tag == "tr"
        if tag in ("meta", "img", "br"):
            self.inside.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "script" in self.inside or "style" in self.inside:
            return
        self.text.append(data.replace(charts.WORD_JOINER, ""))
        if {"h2", "h3", "title"} & set(self.inside):
            self.headings.append(data)


def run(command: str, folder: Path) -> str:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}
    environment |= {"DVC_SITE_CACHE_DIR": str(folder / "site"), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def look_at(folder: Path, command: str) -> Page:
    """The page of a command of `dvc plots`, as a browser without network shows it."""
    run(command, folder)
    return Page(
        run(
            "chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
            "--disable-component-update --disable-sync --host-resolver-rules='MAP * ~NOTFOUND' --window-size=1300,900 "
            f"--user-data-dir=browser --virtual-time-budget=20000 --dump-dom file://{folder}/dvc_plots/index.html",
            folder,
        )
    )


@pytest.fixture
def plots(tmp_path: Path) -> Path:
    """A DVC project of nothing but the plots of `overview`, and a folder of pictures that is empty."""
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    for name in ("config", "plots.html"):
        shutil.copy(ROOT / ".dvc" / name, tmp_path / ".dvc" / name)
    stages = {"overview": {"cmd": "true", "plots": STAGES["overview"]["plots"]}}
    stages["pictures"] = {"cmd": "true", "plots": ["metrics/pictures"]}
    (tmp_path / "metrics/pictures").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}), encoding="utf-8")
    (tmp_path / ".gitignore").write_text("/browser\n/site\n/dvc_plots\n/.dvc/tmp\n/.cache\n/.config\n/.pki\n")
    run("git init -qb main . && git config user.name T && git config user.email t@example.org", tmp_path)
    return tmp_path


browser = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


@browser
@pytest.mark.parametrize(
    ("count", "mistakes", "epochs", "headings"),
    [
        (2, True, (1, 1), {"Confusion matrix"}),
        (10, False, (60, 60), {"Confusion matrix"}),
        (120, False, (1, 20), set()),
        (196, True, (30, 20), {"The most frequent confusions"}),
    ],
)
def test_a_browser_without_network_draws_every_chart_once(
    plots: Path, count: int, mistakes: bool, epochs: tuple[int, int], headings: set[str]
) -> None:
    write_overview(plots / "metrics/overview", SETUP, results(birds(count), mistakes, epochs))
    page = look_at(plots, "dvc plots show")
    expected = {"Accuracy", "Loss", "Learning rate", "F1 of each class, the worst first", "Every class"}
    expected |= {"Images of each class, the rarest first", "Size of the photos"} | headings
    expected |= {"What both models reach", "How far probabilities can be believed"}
    if count <= 10:
        expected |= {"ROC curve of each class", "Precision and recall of each class"}
    assert sorted(page.headings) == sorted(expected | {"Temper: results", "Training", "Test", "Data"})
    assert page.charts == len(expected) - 1, "the table is no chart"
    assert len({mark.split(":")[0] for mark in page.marks}) == page.charts, "a chart without a mark"
    assert not [mark for mark in page.marks if re.search("undefined|NaN|null|Infinity", mark)]
    assert len({mark for mark in page.marks if " test images: " in mark and " recall: " in mark}) <= 3 * 30
    assert page.pictures == 1, "the summary, and no blank one"
    assert page.rows == 1 + count
    seen = "\n".join(page.text)
    assert "could not be drawn" not in seen and "metrics/" not in seen
    assert {"warm-up", "fine-tune", "kept", "0.001"} <= set(page.text)


@browser
def test_strange_names_are_shown_whole_and_run_nothing(plots: Path) -> None:
    write_overview(plots / "metrics/overview", SETUP, results(STRANGE))
    page = look_at(plots, "dvc plots show")
    assert page.headings[0] == "Temper: results" and page.charts == 11
    for name in STRANGE:
        assert page.text.count(name) >= 3, f"in the bars, the matrix and the table: {name}"


@browser
def test_two_revisions_are_compared_on_the_same_charts(plots: Path) -> None:
    (plots / "metrics/pictures/leaks.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    write_overview(plots / "metrics/overview", SETUP, results(birds(10)))
    run("git add -A && git commit -qm first", plots)
    write_overview(plots / "metrics/overview", SETUP, results(birds(10), mistakes=False))
    page = look_at(plots, "dvc plots diff main")
    assert page.charts == 11 and "Leaks" in page.headings
    assert "F1 from main to workspace" in page.text and page.text.count("workspace") >= 5
    assert page.pictures >= 3


@browser
def test_a_plot_that_the_page_does_not_know_is_shown_under_its_own_name(plots: Path) -> None:
    (plots / "metrics/pictures/new_kind.png").write_bytes(
        cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    )
    page = look_at(plots, "dvc plots show")  # nothing else was written so far
    assert page.headings == ["Temper: results", "More", "New kind"] and page.pictures == 1


def test_tables_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    write_overview(tmp_path / "overview", SETUP, results(STRANGE))
    with (tmp_path / "overview/classes.csv").open(encoding="utf-8", newline="") as file:
        names = {row["class_name"].replace(charts.WORD_JOINER, "") for row in csv.DictReader(file)}
    assert names == set(STRANGE)
