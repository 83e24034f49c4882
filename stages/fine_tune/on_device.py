"""Augmentation inside the training step, on the device that trains, such as a GPU.

The random numbers are drawn on the host, the processor, as temper/augmentation/augment.py draws them: from the seed,
the epoch and the image alone, so a killed run resumes with the same bits. A batch has plain images and a few numbers
for each, and the device computes the changed images. The host then has almost nothing to compute, which helps where few
cores serve a fast GPU.
"""

from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt

from temper.augmentation.augment import COUNT, Magnitudes, generator, hue_turn, loses_colour, movement, named
from temper.mixing import Plan

ops = keras.ops

# The columns of the numbers that say how an image is changed.
MATRIX = slice(0, 6)  # maps the pixels of the changed image to those of the plain one
HUE, CONTRAST, BRIGHTNESS, GRAY = 6, 7, 8, 9  # hue from 0 to 1 for a full turn, brightness in levels of 255
PARTNER = 10  # for mixing: the place of the image's partner in the batch
SHARE = 11  # how much of the image is kept inside the rectangle; the rest is its partner's; 0 for CutMix
RECTANGLE = slice(12, 16)  # top, bottom, left and right, in pixels
COLUMNS = 16
GRAY_OF_RGB = (0.299, 0.587, 0.114)  # as in OpenCV

Numbers = npt.NDArray[np.float32]  # (n, COLUMNS)


def draw_numbers(
    rows: npt.NDArray[np.int64],
    repeats: npt.NDArray[np.int64],
    size: tuple[int, int],
    magnitude: Magnitudes,
    seed: int,
    epoch: int,
    mixed: Plan | None = None,
) -> Numbers:
    """The numbers by which a device changes a batch of images as `augment_images`, then `mix_images`, do on the host.

    Args:
        rows, repeats, seed, epoch: as for `augment_images`.
        size: height and width of the images, in pixels.
        mixed: how the images are mixed after that; `None`: not at all.

    Returns:
        float32 (n, COLUMNS); the constants above name the columns.
    """
    numbers = np.zeros((len(rows), COLUMNS), np.float32)
    for one, row, repeat in zip(numbers, rows.tolist(), repeats.tolist(), strict=True):
        draw = named(generator(seed, epoch, row, repeat).uniform(-1, 1, COUNT))
        one[MATRIX] = cv2.invertAffineTransform(movement(*size, magnitude, draw)).ravel()
        one[HUE] = hue_turn(magnitude, draw) / 256
        one[CONTRAST] = 1 + magnitude.contrast * draw["contrast"][0]
        one[BRIGHTNESS] = 255 * magnitude.brightness * draw["brightness"][0]
        one[GRAY] = loses_colour(magnitude, draw)
    if mixed is None:
        numbers[:, PARTNER] = np.arange(len(rows))
    else:
        numbers[:, PARTNER] = mixed.partners
        numbers[:, SHARE] = mixed.shares if mixed.rectangles is None else 0
        numbers[:, RECTANGLE] = (0, size[0], 0, size[1]) if mixed.rectangles is None else mixed.rectangles
    return numbers


class Augmenting(keras.Model):
    """A classifier that augments its images first, if they come with numbers; it shares the classifier's variables.

    Call it with (images, numbers) to train, or with images alone, which it leaves as they are, to predict.

    Args:
        classifier: takes images, (n, height, width, 3), RGB, 0 to 255.
        magnitude: decides which transformations are computed at all; the numbers say how strong each is.
        mixes: whether images are mixed.
    """

    def __init__(self, classifier: keras.Model, magnitude: Magnitudes, mixes: bool) -> None:
        super().__init__(autocast=False)  # the numbers stay float32, whatever the precision
        self.classifier, self._magnitude, self._mixes = classifier, magnitude, mixes
        # XLA has no kernel for TensorFlow's interpolation, so Keras must not compile this model with it.
        self.supports_jit = keras.backend.backend() != "tensorflow" or not _interpolates(magnitude)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Predicts the classes of images, or of changed images."""
        if isinstance(inputs, tuple | list):
            inputs = changed(inputs[0], inputs[1], self._magnitude, self._mixes)
        return self.classifier(inputs, training=training)


def changed(images: Any, numbers: Any, magnitude: Magnitudes, mixes: bool) -> Any:
    """Changed images, float32 (n, height, width, 3) with whole numbers from 0 to 255.

    Args:
        images: plain images, uint8.
        numbers: what `draw_numbers` returned for them.
    """
    pixels = ops.cast(images, "float32")
    if _interpolates(magnitude):
        pixels = _moved(pixels, numbers[:, MATRIX])
    pixels = _recoloured(pixels, numbers, magnitude)
    return _mixed(pixels, numbers) if mixes else pixels


def _interpolates(magnitude: Magnitudes) -> bool:
    """Whether images are moved at all; to mirror one, too, is an interpolation here."""
    return bool(magnitude.moves or magnitude.flip or magnitude.vertical_flip)


def _moved(pixels: Any, matrices: Any) -> Any:
    # The matrices of ops.image have two more numbers, which are 0 unless an image is seen in perspective.
    matrices = ops.pad(matrices, [[0, 0], [0, 2]])
    moved = ops.image.affine_transform(
        pixels, matrices, interpolation="bilinear", fill_mode="reflect", data_format="channels_last"
    )
    return ops.round(moved)


def _recoloured(pixels: Any, numbers: Any, magnitude: Magnitudes) -> Any:
    """Changes hue, contrast, brightness, and removes the colour, in the order of `augment`."""

    def column(number: int) -> Any:
        return numbers[:, number, None, None, None]

    if magnitude.hue:
        hue, saturation, value = ops.split(ops.image.rgb_to_hsv(pixels / 255, data_format="channels_last"), 3, axis=-1)
        hue = (hue + column(HUE)) % 1
        turned = ops.image.hsv_to_rgb(ops.concatenate([hue, saturation, value], axis=-1), data_format="channels_last")
        pixels = ops.round(255 * turned)
    if magnitude.contrast or magnitude.brightness:
        mean = ops.mean(pixels, axis=(1, 2, 3), keepdims=True)
        pixels = ops.round(ops.clip((pixels - mean) * column(CONTRAST) + mean + column(BRIGHTNESS), 0, 255))
    if magnitude.grayscale:
        gray = ops.round(ops.sum(pixels * ops.convert_to_tensor(GRAY_OF_RGB), axis=-1, keepdims=True))
        pixels = ops.where(column(GRAY) > 0, gray, pixels)
    return pixels


def _mixed(pixels: Any, numbers: Any) -> Any:
    partners = ops.take(pixels, ops.cast(numbers[:, PARTNER], "int32"), axis=0)
    height, width = pixels.shape[1:3]
    top, bottom, left, right = (numbers[:, place, None] for place in range(RECTANGLE.start, RECTANGLE.stop))
    rows, columns = ops.arange(height, dtype="float32"), ops.arange(width, dtype="float32")
    tall, wide = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
    share = numbers[:, SHARE, None, None, None]
    mixed = ops.round(share * pixels + (1 - share) * partners)
    return ops.where((tall[:, :, None] & wide[:, None, :])[..., None], mixed, pixels)
