"""Measures ResNet50 in bfloat16 on one NVIDIA GPU: training images per second, here and in PyTorch, interleaved.

    python -m benchmarks.gpu [--torch .venv-detectron2/bin/python] [--rounds 3] [--batch 128] [--image 224]

All train on the same uint8 images in memory, with SGD and momentum. `keras` reads them as the fine-tune does, with
TensorFlow's deterministic operations; `keras_xla` does without deterministic operations and compiles with XLA;
`keras_host` and `keras_device` are `keras` with `aug: 0.1`, under `fine_tune.augment_on: host` and `device`; `torch` is
a plain loop with channels_last, bfloat16 and torch.compile, in another environment with torch. Each runs in a process
of its own, and the first epoch, which compiles, does not count. `busy` is the share of the time in which the GPU
computes anything: the mean of nvidia-smi's figure, read ten times a second.

Without a GPU, it says so in one line. To try the script itself, without meaningful figures:

    python -m benchmarks.gpu --device cpu --image 64 --batch 4 --images 16 --rounds 1 [--torch PYTHON]
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from temper.base.machine import gpu_names

PLAIN = ("keras", "keras_xla")  # what PyTorch's loop is compared with, which does not augment
KERAS = (*PLAIN, "keras_host", "keras_device")
AUG = 0.1
EPOCHS = 3  # after the first
CLASSES = 1000


# Heavy imports stay inside the functions that run as processes of their own.


def images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(count, side, side, 3), dtype=np.uint8)


def keras_epoch(arguments: argparse.Namespace) -> Callable[[], None]:
    """An epoch as the fine-tune trains it."""
    import os  # noqa: PLC0415

    deterministic = arguments.run != "keras_xla"
    os.environ["TF_DETERMINISTIC_OPS"] = "1" if deterministic else "0"
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras  # noqa: PLC0415

    from stages.fine_tune.on_device import Augmenting, draw_numbers  # noqa: PLC0415
    from temper.augmentation.augment import augment_images, magnitudes  # noqa: PLC0415
    from temper.base.machine import cores  # noqa: PLC0415
    from temper.batches import Batches, one_hot, shuffled  # noqa: PLC0415
    from temper.settings.augmentation import Augmentation  # noqa: PLC0415
    from temper.training.phases import STEPS_AT_ONCE  # noqa: PLC0415

    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    pixels = keras.Input((arguments.image, arguments.image, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    network = keras.applications.ResNet50(weights=None, classes=CLASSES, input_shape=pixels.shape[1:])
    model, magnitude = keras.Model(pixels, network(scaled)), magnitudes(AUG, Augmentation())
    if arguments.run == "keras_device":
        model = Augmenting(model, magnitude, mixes=False)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    compiled = {"jit_compile": not deterministic, "steps_per_execution": STEPS_AT_ONCE}
    model.compile(optimizer, "categorical_crossentropy", **compiled)
    photos = images(arguments.images, arguments.image)
    targets = one_hot(np.arange(len(photos), dtype=np.int32) % CLASSES, CLASSES)
    order = shuffled(len(photos), 0, 0)

    def read(rows: np.ndarray) -> Any:
        chosen = photos[rows]
        if arguments.run == "keras_device":
            return chosen, draw_numbers(rows, np.zeros_like(rows), chosen.shape[1:3], magnitude, 0, 0)
        if arguments.run == "keras_host":
            augment_images(chosen, rows, magnitude, 0, 0)
        return chosen

    batches = Batches(read, targets, order, arguments.batch, cores())
    return lambda: (model.fit(batches, verbose=0, shuffle=False), None)[1]


def torch_resnet50() -> Any:
    """ResNet50 in PyTorch as Keras has it: a block's first convolution strides, where torchvision's second one does.

    So both do the same work; the numbers of their parameters are equal.
    """
    from torch import nn  # noqa: PLC0415

    def convolution(into: int, out: int, side: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(into, out, side, stride, side // 2), nn.BatchNorm2d(out)]

    class Block(nn.Module):
        def __init__(self, into: int, width: int, stride: int, first: bool) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                *(*convolution(into, width, 1, stride), nn.ReLU()),
                *(*convolution(width, width, 3), nn.ReLU()),
                *convolution(width, 4 * width, 1),
            )
            self.beside = nn.Sequential(*convolution(into, 4 * width, 1, stride) if first else [])
            self.end = nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.end(self.inner(x) + self.beside(x))

    layers = [*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    into = 64
    for width, stride, count in ((64, 1, 3), (128, 2, 4), (256, 2, 6), (512, 2, 3)):
        for number in range(count):
            layers.append(Block(into, width, 1 if number else stride, not number))
            into = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(into, CLASSES))


def torch_epoch(arguments: argparse.Namespace) -> Callable[[], None]:
    """The plain loop of PyTorch's tuning guide, with batches copied from pinned memory while the GPU computes."""
    import torch  # noqa: PLC0415

    device = "cpu" if arguments.device == "cpu" else "cuda"
    torch.backends.cudnn.benchmark = True
    model = torch_resnet50().to(device, memory_format=torch.channels_last)
    step = torch.compile(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    data = torch.from_numpy(images(arguments.images, arguments.image))
    labels = torch.arange(len(data)) % CLASSES

    def epoch() -> None:
        for rows in torch.randperm(len(data)).split(arguments.batch):
            photos, targets = data[rows], labels[rows]
            if device == "cuda":
                photos, targets = photos.pin_memory(), targets.pin_memory()
            photos = photos.to(device, non_blocking=True).permute(0, 3, 1, 2)  # channels last in memory as they are
            targets = targets.to(device, non_blocking=True)
            with torch.autocast(device, torch.bfloat16):
                loss = torch.nn.functional.cross_entropy(step(photos.float() / 127.5 - 1), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return epoch


def measure(arguments: argparse.Namespace) -> None:
    """In a process of its own: prints images a second, and the share of the time in which the GPU was busy."""
    epoch = torch_epoch(arguments) if arguments.run == "torch" else keras_epoch(arguments)
    epoch()  # compiles
    asked = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=100", "--id=0"]
    watch = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) if arguments.device == "gpu" else None
    start = time.perf_counter()
    for _ in range(EPOCHS):
        epoch()
    seconds = time.perf_counter() - start
    said = ""
    if watch is not None:
        watch.terminate()
        said, _ = watch.communicate()
    busy = statistics.mean(map(float, said.split())) if said.split() else float("nan")
    print(EPOCHS * arguments.images / seconds, busy)


def run(kind: str, arguments: argparse.Namespace) -> tuple[float, float]:
    """What one measurement prints."""
    python = arguments.torch if kind == "torch" else sys.executable
    passed = [f"--{name}={getattr(arguments, name)}" for name in ("device", "batch", "image", "images")]
    command = [python, "-m", "benchmarks.gpu", "--run", kind, *passed]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rate, busy = map(float, done.stdout.split()[-2:])
    return rate, busy


def has_torch(python: str | None) -> bool:
    """Whether an environment has what `torch` needs."""
    with suppress(OSError):
        asked = [python or "", "-c", "import torch"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", help="the Python of an environment with torch")
    for name, default in (("rounds", 3), ("batch", 128), ("image", 224), ("images", 4096)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="cpu: to try the script itself")
    parser.add_argument("--run", choices=(*KERAS, "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        return measure(arguments)
    torch = has_torch(arguments.torch)
    if arguments.device == "gpu" and not gpu_names():
        sys.exit("nothing is measured: expected an NVIDIA GPU with its driver, found none")
    if not torch:
        print("without PyTorch: --torch PYTHON names an environment that has it")
    kinds = [*KERAS, "torch"] if torch else [*KERAS]
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(arguments.rounds):
        for kind in kinds:
            rate, busy = run(kind, arguments)
            rates[kind].append(rate)
            said = "on the CPU" if arguments.device == "cpu" else f"GPU busy {busy:.0f} %"
            print(f"round {number + 1}, {kind}: {rate:,.1f} images a second, {said}", flush=True)
    print_ratio("keras_device", "keras_host", rates)
    for kind in PLAIN if torch else ():
        print_ratio(kind, "torch", rates)


def print_ratio(kind: str, other: str, rates: dict[str, list[float]]) -> None:
    """Prints the median and the range of the ratios of two kinds' rates, round by round."""
    ratios = [ours / theirs for ours, theirs in zip(rates[kind], rates[other], strict=True)]
    print(f"{kind} / {other}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
