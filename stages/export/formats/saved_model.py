"""SavedModel, for TensorFlow Serving and other uses of TensorFlow: a folder, with the card in `assets/card.json`."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from stages.export import graph
from stages.export.artefact import Artefact, Images, Request
from temper import card
from temper.measures.calibration import Probabilities


def write(request: Request, path: Path) -> None:
    """Writes a classifier for any number of images, with the signature `serving_default`."""
    graph.save(graph.frozen(request.classifier), path)
    (path / "assets").mkdir()
    (path / "assets" / card.NAME).write_text(request.card, encoding="utf-8")


def open_artefact(path: Path) -> Artefact:
    """Opens a folder with TensorFlow."""
    loaded = tf.saved_model.load(str(path))
    _, named = loaded.signatures[graph.SIGNATURE].structured_input_signature
    shapes = [tuple(-1 if side is None else side for side in of.shape) for of in named.values()]

    def predict(images: Images) -> Probabilities:
        given = {name: tf.constant(images.astype(np.float32)) for name in named}
        # Through `loaded`, because a signature alone does not keep its model in memory.
        probabilities: Probabilities = loaded.signatures[graph.SIGNATURE](**given)[graph.PROBABILITIES].numpy()
        return probabilities

    return Artefact(shapes, (path / "assets" / card.NAME).read_text(encoding="utf-8"), True, predict)
