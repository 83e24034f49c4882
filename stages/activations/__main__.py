"""activations: packed images, the backbone, data/boundary.json -> data/activations/<split>/.

Stores the output of the frozen layers of the backbone, on which `fine_tune` then trains the unfrozen ones. The frozen
layers process `fine_tune.views` views of every training image once, however many epochs and experiments the fine-tune
has. Layers whose output the unfrozen part uses are numbered 0, 1, ...: `train/0/activations-00000.npy`, ... are float32
(n, views, ...), the output of the first of them. View 0 is the plain image. With `fine_tune.views: 0`, nothing is
computed, and Keras is not even imported.
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
        print("no activations are stored: fine_tune.views is 0")
        return
    starting.prepare_keras(on_gpu=True)
    from stages.activations.frozen import write_activations  # noqa: PLC0415 (Keras takes seconds)

    write_activations(chosen)


if __name__ == "__main__":
    running.run(main, StageSettings)
