"""What chosen layers of the backbone respond to: kernels of the first layer, activations of deeper layers on photos."""

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from temper.base.errors import TemperError
from temper.explanations.filters import Filters
from temper.explanations.layer_names import require_layers
from temper.packs import Pack

BACKBONE = "backbone"  # as in temper/freezing/classifier.py; not imported, so that the stage need not depend on it
IMAGES = 5  # how many test images are used, evenly spaced over the pack
CHANNELS = 10  # how many channels of a layer are kept: those that vary most within the images


def find(classifier: keras.Model, names: Sequence[str], pack: Pack) -> Filters:
    """The kernels of the named layers that see RGB pixels, and the activations of the others on some test images.

    Raises:
        TemperError: the backbone has no layer of such a name, or a layer's output is not a feature map.
    """
    backbone = classifier.get_layer(BACKBONE)
    require_layers("evaluate.filters", names, [layer.name for layer in backbone.layers])
    rows = np.unique(np.linspace(0, len(pack) - 1, IMAGES).round().astype(np.int64))
    kernels, maps, channels = {}, {}, {}
    for name in dict.fromkeys(names):
        layer = backbone.get_layer(name)
        if sees_colours(layer):
            kernels[name] = np.asarray(keras.ops.convert_to_numpy(layer.kernel), np.float32)
        else:
            channels[name], maps[name] = strongest(activations(backbone, layer, pack.images(rows)))
    return Filters(kernels, maps, channels, rows)


def sees_colours(layer: keras.Layer) -> bool:
    """Whether a layer is a convolution with three input channels, as the first one of a backbone is."""
    return isinstance(layer, keras.layers.Conv2D) and layer.groups == 1 and layer.kernel.shape[2] == 3


def activations(backbone: keras.Model, layer: keras.Layer, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """A layer's output for images: (n, height, width, channels).

    Raises:
        TemperError: the output does not have these four dimensions.
    """
    shape = getattr(layer.output, "shape", ())
    if len(shape) != 4:
        raise TemperError(
            f"evaluate.filters: expected layers that give maps of the image, received {layer.name}, whose output has "
            f"the shape {tuple(shape)}; choose a convolution or an activation before the pooling"
        )
    said: npt.NDArray[np.float32] = keras.Model(backbone.input, layer.output).predict_on_batch(images)
    return said


def strongest(maps: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """The channels that vary most within the images, int64 (k,), and their maps, (n, height, width, k).

    Each channel is scaled so that its values range from 0 to 1 over all images.
    """
    order = np.argsort(-maps.std(axis=(1, 2)).mean(axis=0), kind="stable")[:CHANNELS]
    chosen = maps[..., order]
    low, high = (end(chosen, axis=(0, 1, 2)) for end in (np.min, np.max))
    return order, ((chosen - low) / np.maximum(high - low, 1e-9)).astype(np.float16)
