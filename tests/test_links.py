"""The disk holds an output once, linked to DVC's cache, and nothing that a stage writes goes through such a link."""

import hashlib
from pathlib import Path

import pytest
import yaml

from tests.toys.photos import write_toy_photos
from tests.toys.workspace import ROOT, Workspace, ran

STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def cached(folder: Path) -> dict[Path, str]:
    """The objects of DVC's cache with their checksums, each of which must be its name."""
    below = folder / ".dvc/cache/files/md5"
    objects = {path: md5(path) for path in sorted(below.rglob("*")) if path.is_file()}
    for path, checksum in objects.items():
        assert path.parent.name + path.name.removesuffix(".dir") == checksum, f"{path} was written to"
    return objects


def outputs(folder: Path) -> list[Path]:
    """The files that lie in DVC's cache, with some bytes in them: DVC links no empty ones."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    not_cached = [
        folder / name
        for stage in stages.values()
        for kind in ("metrics", "plots")
        for out in stage.get(kind, [])
        if isinstance(out, dict)
        for name, options in out.items()
        if options.get("cache") is False
    ]
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    found: list[Path] = []
    for out in (folder / out["path"] for stage in lock.values() for out in stage.get("outs", [])):
        found += [out] if out.is_file() else [inside for inside in out.rglob("*") if inside.is_file()]
    return [path for path in found if path not in not_cached and path.stat().st_size]


def copies(folder: Path) -> list[Path]:
    """The outputs whose bytes the disk holds a second time, beside the cache."""
    return [path for path in outputs(folder) if not path.is_symlink() and path.stat().st_nlink == 1]


def test_the_disk_holds_no_output_twice(toy_pipeline: Workspace) -> None:
    assert len(outputs(toy_pipeline.folder)) > 25
    assert copies(toy_pipeline.folder) == []


def test_what_a_rerun_writes_again_is_linked_again(pipeline: Workspace) -> None:
    """Where most files of an output stay the same, which is what the cuts are for, these are no copies either."""
    pipeline.run("dvc checkout --relink")  # copying the workspace made files of the links
    assert ran(pipeline.run("dvc repro --force pack"))[0] == "fetch@photos"
    assert copies(pipeline.folder) == []


@pytest.mark.slow
def test_a_cache_on_another_disk_is_linked_too(pipeline: Workspace) -> None:
    """Hard links end at the disk; symbolic ones do not. Both are read by every stage, and written through by none."""
    pipeline.run("dvc config cache.type symlink")
    pipeline.run("dvc checkout --relink")
    before = cached(pipeline.folder)
    pipeline.set(lr=2e-3, image_size=20)
    assert len(ran(pipeline.run("dvc repro"))) > 5
    assert copies(pipeline.folder) == [] and before.items() <= cached(pipeline.folder).items()
    assert (pipeline.folder / "models/fine_tune.keras").is_symlink()


@pytest.mark.slow
def test_a_stage_run_by_hand_leaves_the_cache_as_it_is(pipeline: Workspace, tmp_path: Path) -> None:
    """Run on other photos, seed and rate, so that every stage writes other bytes than those that are linked."""
    pipeline.run("dvc checkout --relink")
    assert copies(pipeline.folder) == []
    before, written = cached(pipeline.folder), {path: md5(path) for path in outputs(pipeline.folder)}
    photos = write_toy_photos(tmp_path / "others", per_class=30, first=700)
    pipeline.set(fetch__photos__path=str(photos), seed=1, image_size=20, lr=2e-3)
    for stage in STAGES:
        pipeline.run(f"python -m stages.{'fetch photos' if stage == 'fetch' else stage}")
    after = {path: md5(path) for path in written if path.exists()}
    same = {path.relative_to(pipeline.folder).as_posix() for path in after if after[path] == written[path]}
    # Without boxes, crops, findings, folds or unlabelled images these are the same; and so is the rate of the warm-up.
    few = {"data/boxes.parquet", "data/classes.txt", "data/packed/crops.parquet", "data/rejected.csv"}
    few |= {
        "data/activations/layers.json",  # of stored views, of which there are none
        "data/boundary.json",
        "data/mistakes.csv",
        "data/to_label.csv",
        "data/out_of_fold.parquet",
        "metrics/cross_validate/probable_label_errors.csv",
    }
    assert {name for name in same if not name.startswith(("data/audit/", "metrics/warm_up/plots/"))} <= few | {
        "data/packed/unlabelled/images-00000.npy",
        "data/packed/unlabelled/labels.npy",
        "data/packed/unlabelled/image_ids.npy",
    }
    assert cached(pipeline.folder) == before
    pipeline.run("git checkout -q params.yaml")
    assert ran(pipeline.run("dvc repro")) == []
    assert {path: md5(path) for path in outputs(pipeline.folder)} == written


@pytest.mark.slow
@pytest.mark.parametrize("command", ["dvc exp run --temp -S lr=2e-6", "dvc exp run --queue -S lr=2e-6"])
def test_experiments_in_copies_of_the_repository_use_links_too(pipeline: Workspace, command: str) -> None:
    pipeline.run("dvc checkout --relink")
    before, written = cached(pipeline.folder), {path: md5(path) for path in outputs(pipeline.folder)}
    pipeline.run(command)
    if "--queue" in command:
        pipeline.run("dvc exp run --run-all")
        assert "Success" in pipeline.run("dvc queue status")
    assert before.items() <= cached(pipeline.folder).items()
    assert len(cached(pipeline.folder)) > len(before)
    assert {path: md5(path) for path in outputs(pipeline.folder)} == written
