"""MixUp and CutMix: the equations of their papers, and that a batch is mixed the same way whoever reads it."""

import numpy as np
import pytest
from pydantic import ValidationError

from temper.base import loading
from temper.base.errors import TemperError
from temper.mixing import Plan, cut, mix_images, mixed_targets, plan
from temper.settings.augmentation import Augmentation
from temper.settings.embed import Embed
from temper.settings.fine_tune import Settings
from temper.settings.mixing import MixedAugmentation

KINDS = [{"mixup": 0.2}, {"mixup": 1.0}, {"cutmix": 1.0}, {"cutmix": 0.3}, {"mixup": 0.4, "cutmix": 1.0}]
SHAPES = [(24, 24), (10, 30), (30, 10), (8, 8)]


def planned(
    on: dict[str, float], count: int = 16, shape: tuple[int, int] = (24, 24), place: tuple[int, int, int] = (0, 0, 0)
) -> Plan:
    """The plan of a batch, which is mixed; `place`: seed, epoch, batch."""
    found = plan(count, *shape, MixedAugmentation.model_validate(on), *place)
    assert found is not None
    return found


def batch(count: int, shape: tuple[int, int] = (24, 24), classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (count, *shape, 3)).astype(np.uint8)
    return images, np.eye(classes, dtype=np.float32)[np.arange(count) % classes]


def plans(**on: float) -> list[Plan]:
    """Those of many batches of 32."""
    return [planned(on, 32, (32, 32), (0, 0, number)) for number in range(200)]


@pytest.mark.parametrize("on", [{}, {"mixup": 0}, {"cutmix": 0}])
def test_off_means_nothing_is_mixed(on: dict[str, float]) -> None:
    assert plan(16, 24, 24, MixedAugmentation.model_validate(on), 0, 0, 0) is None


def test_an_image_that_is_alone_in_its_batch_stays_as_it_is() -> None:
    assert plan(1, 24, 24, MixedAugmentation(mixup=1, cutmix=1), 0, 0, 0) is None


@pytest.mark.parametrize("on", KINDS)
def test_the_plan_follows_from_seed_epoch_and_batch(on: dict[str, float]) -> None:
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    shares = [tuple(planned(on, place=place).shares) for place in places]
    assert len(set(shares)) == 4
    assert shares == [tuple(planned(on, place=place).shares) for place in places]


@pytest.mark.parametrize("on", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [2, 7, 32])
def test_targets_keep_their_sum_and_images_their_shape(
    on: dict[str, float], shape: tuple[int, int], count: int
) -> None:
    for number in range(5):
        images, targets = batch(count, shape)
        found = planned(on, count, shape, (0, 0, number))
        assert sorted(found.partners) == list(range(count)) and (found.partners != np.arange(count)).all()
        assert ((found.shares >= 0) & (found.shares <= 1)).all()
        mix_images(images, found)
        mixed = mixed_targets(targets, found)
        assert images.shape == (count, *shape, 3) and images.dtype == np.uint8
        assert mixed.dtype == np.float32 and (mixed >= 0).all() and np.allclose(mixed.sum(axis=1), 1, atol=1e-6)


def test_mixup_blends_images_and_targets_by_the_same_share() -> None:
    images, targets = batch(16)
    found, before = planned({"mixup": 1.0}), images.copy()
    mix_images(images, found)
    for place, (partner, share) in enumerate(zip(found.partners, found.shares, strict=True)):
        exact = share * before[place].astype(float) + (1 - share) * before[partner]
        assert np.abs(images[place] - exact).max() <= 0.5 + 1e-3
        expected = share * targets[place] + (1 - share) * targets[partner]
        assert np.allclose(mixed_targets(targets, found)[place], expected, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_cutmix_takes_a_rectangle_and_counts_its_pixels(shape: tuple[int, int]) -> None:
    before = np.stack([np.full((*shape, 3), number, np.uint8) for number in range(16)])  # a level for each image
    images, found = before.copy(), planned({"cutmix": 1.0}, shape=shape)
    mix_images(images, found)
    assert found.rectangles is not None and len(set(found.shares)) > 4
    for place, (top, bottom, left, right) in enumerate(found.rectangles):
        partners = images[place, ..., 0] == found.partners[place]
        assert partners[top:bottom, left:right].all() and (images[place, ..., 0][~partners] == place).all()
        assert found.shares[place] == pytest.approx(1 - partners.mean())


def test_what_a_partner_gives_is_the_image_before_it_was_mixed_itself() -> None:
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (0, 100, 200)])
    mix_images(images, Plan(np.array([1, 2, 0]), np.full(3, 0.5), None))
    assert images[:, 0, 0, 0].tolist() == [50, 150, 100]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_of_mixup_are_those_of_the_beta_distribution(alpha: float) -> None:
    shares = np.concatenate([found.shares for found in plans(mixup=alpha)])
    assert abs(shares.mean() - 0.5) < 0.02 and abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    assert len(np.unique(shares)) > 6000, "each image has a share of its own"


def test_cutmix_leaves_more_than_its_share_where_the_rectangle_is_cut_off() -> None:
    """With the centre anywhere, the mean area of a square of side s within the unit square: (s - s^2 / 4)^2."""
    shares = np.concatenate([found.shares for found in plans(cutmix=1.0)])
    side = np.sqrt(np.linspace(0, 1, 10_001))
    assert abs((1 - shares).mean() - ((side - side**2 / 4) ** 2).mean()) < 0.02
    assert shares.min() < 0.1 and shares.max() == 1


@pytest.mark.parametrize(
    ("share", "centre", "expected"),
    [
        (1.0, (0.5, 0.5), [6, 6, 12, 12]),  # nothing
        (0.0, (0.5, 0.5), [0, 12, 0, 24]),  # all
        (0.0, (0.0, 0.0), [0, 6, 0, 12]),  # the paper cuts off what is outside
        (0.75, (0.5, 0.5), [3, 9, 6, 18]),  # a quarter of the area, of the image's proportions
        (0.75, (1.0, 0.5), [9, 12, 6, 18]),
    ],
)
def test_rectangles(share: float, centre: tuple[float, float], expected: list[int]) -> None:
    assert cut(np.array([share]), np.array([centre]), 12, 24).tolist() == [expected]


def test_with_both_on_each_batch_has_one_of_them_half_the_time() -> None:
    by_cutmix = [found.rectangles is not None for found in plans(mixup=0.2, cutmix=1.0)]
    assert 70 < sum(by_cutmix) < 130
    assert all(found.rectangles is None for found in plans(mixup=0.2))
    assert all(found.rectangles is not None for found in plans(cutmix=1.0))


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 100])
def test_extreme_alphas_give_shares(alpha: float) -> None:
    for on in ({"mixup": alpha}, {"cutmix": alpha}):
        shares = planned(on, 256).shares
        assert np.isfinite(shares).all() and ((shares >= 0) & (shares <= 1)).all()


@pytest.mark.parametrize("wrong", [{"mixup": -0.1}, {"cutmix": 101}, {"mixup": float("inf")}, {"mixup": "much"}])
def test_wrong_alphas_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MixedAugmentation.model_validate(wrong)


def test_only_training_in_batches_takes_mixing() -> None:
    """`embed` shows one image at a time to the backbone: there is nothing to mix (law 8)."""
    assert "mixup" not in Augmentation.model_fields
    with pytest.raises(ValidationError, match="mixup"):
        Embed.model_validate({"augmentation": {"mixup": 0.2}})


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_batches_of_one_image_are_refused_where_they_should_be_mixed(name: str) -> None:
    params = {"seed": 0, "batch_size": 1, "lr": 0.1, "aug": 0, "fine_tune": {"augmentation": {name: 0.2}}}
    with pytest.raises(
        TemperError, match=f"^params.yaml: fine_tune.augmentation.{name} mixes .* at least 2, received 1$"
    ):
        loading.validate(Settings, params, "params.yaml")
    assert loading.validate(Settings, params | {"batch_size": 2}, "params.yaml")
    assert loading.validate(Settings, params | {"fine_tune": {}}, "params.yaml")
