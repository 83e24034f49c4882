"""`engine: ray` on a local Ray of two cores: the same boxes as without it. Skips where Ray is not installed."""

import importlib.util
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stages.detect import on_ray, unseen
from stages.detect.detectors.yolox import Settings, YoloxDetector, find_boxes
from temper.base.errors import TemperError
from tests.toys.cars import cars
from tests.toys.detector import (
    CAR_IN_BUS,
    find_new,
    nano_settings,
    rows,
    toy_detector,
    write_toy_detector,
    yolox_section,
)
from tests.toys.tables import gray, write_raw
from tests.toys.workspace import ROOT

without_ray = importlib.util.find_spec("ray") is None
needs_ray = pytest.mark.skipif(without_ray, reason="Ray is not installed: pip install 'ray[data]'")


@pytest.fixture
def two_cores() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield
    ray.shutdown()


@needs_ray
@pytest.mark.slow
def test_the_boxes_are_the_same_on_ray(in_tmp_path: Path, shared: Path, two_cores: None) -> None:
    images = write_raw(in_tmp_path, [data for data, _ in cars(shared)])
    assert images["part"][-1].as_py() > 0, "several parts"
    here = rows(find_new(images, YoloxDetector(nano_settings(shared))))
    settings = nano_settings(shared, engine="ray")
    there = unseen.find_boxes(images, "ray", partial(YoloxDetector, settings, 1), settings)
    assert rows(there) == here and len(here) == 60
    assert len(list((in_tmp_path / ".temper/boxes").iterdir())) == 2, "Ray was not served from the other's cache"


@needs_ray
@pytest.mark.slow
def test_what_an_actor_meets_ends_in_one_line(in_tmp_path: Path, two_cores: None) -> None:
    images = write_raw(in_tmp_path, [gray(1), b"\x89PNG\r\n\x1a\n broken", gray(2)])
    settings = toy_detector(in_tmp_path).settings
    with pytest.raises(TemperError, match=r"^detect: 1.jpg .*received a truncated or corrupt PNG;"):
        list(on_ray.detect(partial(YoloxDetector, settings, 1), images, actors=1, gpus=0))


@pytest.mark.skipif(not without_ray, reason="Ray is installed")
def test_without_ray_the_error_says_how_to_have_it(in_tmp_path: Path) -> None:
    images = write_raw(in_tmp_path, [gray(1)])
    section = yolox_section(write_toy_detector(in_tmp_path / "toy.onnx", CAR_IN_BUS), engine="ray")
    with pytest.raises(TemperError, match=r"expected the package ray, found none; pip install 'ray\[data\]'"):
        list(find_boxes(images, Settings.model_validate(section)))
