"""Photos that are unlike the training photos: found among synthetic embeddings, and as seldom as promised by chance."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from apps.retrain.unlike import SIGNIFICANT, Limit, distances
from tests.toys.embeddings import toy_images


def cloud(count: int, seed: int, classes: int = 5) -> np.ndarray:
    plain: np.ndarray = toy_images(count, 32, classes, noise=0.5, seed=seed).views[:, 0]
    return plain


def test_the_distance_is_that_to_the_fifth_nearest_by_angle() -> None:
    angles = np.radians([0, 10, 20, 30, 40, 50, 180])
    training = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1.0, 8.0)[:, None]  # lengths do not count
    photos = np.array([[3.0, 0.0], [0.0, 0.0]])
    assert distances(training, photos).tolist() == pytest.approx([1 - np.cos(np.radians(40)), 1], abs=1e-6)
    assert distances(training[:2], photos[:1]).tolist() == pytest.approx([1 - np.cos(np.radians(10))], abs=1e-6)
    many = np.random.default_rng(0).normal(size=(600, 2))  # more than a block
    assert np.allclose(distances(training, many), [distances(training, one[None])[0] for one in many], atol=1e-6)


@pytest.mark.parametrize("photos", [np.zeros((3, 4)), np.zeros((3, 5))])
def test_what_cannot_be_compared_is_refused(photos: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected embeddings of training photos"):
        distances(np.zeros((0 if photos.shape[1] == 4 else 3, 4)), photos)
    with pytest.raises(ValueError, match="received none"):
        Limit.of(np.zeros(0))


@pytest.mark.parametrize(("images", "rank", "chance"), [(1000, 991, 10 / 1001), (99, 99, 1 / 100), (20, 20, 1 / 21)])
def test_the_limit_is_that_of_a_validation_photo(images: int, rank: int, chance: float) -> None:
    limit = Limit.of(np.random.default_rng(0).permutation(images) + 1.0)
    assert (limit.distance, limit.rank, limit.images) == (rank, rank, images)
    assert limit.chance == pytest.approx(chance)


def test_photos_of_the_same_kind_are_flagged_as_seldom_as_promised() -> None:
    """Each trial draws validation photos and new ones from one distribution; only their ranks count."""
    random, trials = np.random.default_rng(0), 4000
    flagged = above = 0
    for validation, new in [(60, 100)] * trials:
        values = random.random(validation + new)
        limit = Limit.of(values[:validation])
        count = int((values[validation:] > limit.distance).sum())
        above += count
        flagged += limit.is_flagged(count, new)
    assert above / trials / 100 == pytest.approx(1 / 61, rel=0.1), "as many as `chance` says"
    assert flagged <= binom.ppf(0.999, trials, SIGNIFICANT)


def test_photos_of_another_kind_are_flagged_and_few_of_them_are_found() -> None:
    training, validation = cloud(400, 0), cloud(80, 1)
    limit = Limit.of(distances(training, validation))
    like, other = distances(training, cloud(100, 2)), distances(training, cloud(100, 3, classes=7))
    assert not limit.is_flagged(int((like > limit.distance).sum()), 100)
    assert (other > limit.distance).mean() > 0.9
    assert limit.is_flagged(int((other > limit.distance).sum()), 100)
    mixed = np.concatenate([like[:90], other[:10]])
    assert limit.is_flagged(int((mixed > limit.distance).sum()), 100), "ten among a hundred"
    assert not limit.is_flagged(0, 100) and not limit.is_flagged(0, 0)


@pytest.mark.slow  # a real network looks at 400 photos
def test_cars_and_cats_are_unlike_flowers(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/retrain.md says of MobileNet 0.25 with its ImageNet weights."""
    import zipfile  # noqa: PLC0415

    import keras  # noqa: PLC0415

    from temper.photos import BadPhoto  # noqa: PLC0415
    from temper.preparation import Preparation, prepare  # noqa: PLC0415

    network = keras.applications.MobileNet((224, 224, 3), 0.25, include_top=False, pooling="avg", weights=None)
    network.load_weights(shared / "weights/mobilenet_2_5_224_tf_no_top.h5")

    def embedded(photos: list[bytes]) -> np.ndarray:
        pixels = []
        for data in photos:
            try:
                pixels.append(prepare(data, Preparation(224, 224, "stretch", 0.0)))
            except BadPhoto:
                continue
        embeddings: np.ndarray = network.predict(np.stack(pixels) / 127.5 - 1, verbose=0)
        return embeddings

    with zipfile.ZipFile(shared / "data/flowers/flowers.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        flowers = embedded([archive.read(names[number]) for number in np.random.default_rng(0).permutation(len(names))])
    limit = Limit.of(distances(flowers[:195], flowers[195:240]))
    like = int((distances(flowers[:195], flowers[240:]) > limit.distance).sum())
    assert not limit.is_flagged(like, len(flowers) - 240)
    for kind in ("stanford_cars/cars_train", "cat_breeds/train"):
        others = embedded([path.read_bytes() for path in sorted((shared / "data" / kind).glob("*.jpg"))[:60]])
        above = int((distances(flowers[:195], others) > limit.distance).sum())
        assert limit.is_flagged(above, len(others)) and above > len(others) / 2, kind
