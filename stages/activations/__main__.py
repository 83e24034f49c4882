"""activations: packed images, the backbone, data/boundary.json -> data/activations/<split>/.

What the open part of the backbone trains on: the frozen part sees `fine_tune.views` views of every training image once,
however many epochs and experiments the fine-tune has. `train/0/activations-00000.npy`, ... are float32 (n, views, ...),
the output of the first layer that crosses the boundary; view 0 is the plain image. With `views: 0` nothing is computed,
and Keras not even imported.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin()  # before anything heavy is imported

from temper.base import running
from temper.base.atomic import atomic_folder
from temper.freezing import boundary
from temper.freezing.activations import FOLDER, write_layers
from temper.settings.base import StageSettings


def main(settings: StageSettings) -> None:
    chosen = boundary.read()
    if not chosen.views:
        with atomic_folder(FOLDER) as folder:
            write_layers(folder, [])
        print("nothing is stored of the frozen part of the backbone: fine_tune.views is 0")
        return
    starting.prepare_keras(on_gpu=True)
    from stages.activations.frozen import write_activations  # noqa: PLC0415 (Keras takes seconds)

    write_activations(chosen)


if __name__ == "__main__":
    running.run(main, StageSettings)
