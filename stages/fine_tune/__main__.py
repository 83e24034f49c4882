"""fine_tune: packed train and validation images, models/warm_up.keras -> models/fine_tune.keras, metrics/fine_tune/.

The second phase. It unfreezes the backbone from the layer or block `fine_tune.unfreeze_from` up to the head and trains
the unfrozen layers and the head at the top-level `lr`, on images augmented by the top-level `aug`.

- `fine_tune.unfreeze_further` unfreezes more blocks as the epochs go by.
- With `fine_tune.views`, the stage `activations` has stored the output of the frozen layers, and only the layers above
  them run here, on these stored activations instead of images.
- No worse model ships: the warm-up counts as epoch 0. If no epoch beats it on validation by `fine_tune.margin` standard
  errors, models/fine_tune.keras gets the weights halfway from the warm-up to the last epoch if these beat it, and else
  the warm-up's.
"""

from temper.base import starting

if __name__ == "__main__":
    starting.begin(with_keras=True, on_gpu=True)  # before anything heavy is imported

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from stages.fine_tune import batch_size, on_device, sampling
from stages.fine_tune.depth import computing_in, scales
from stages.fine_tune.folding import fold_frozen_norms
from stages.fine_tune.opening import openings_due
from stages.fine_tune.stepping_back import Step, halfway, step_back
from temper import card, devices, keras_files, mixing
from temper.augmentation.augment import augment_images, magnitudes
from temper.base import loading, running
from temper.base.errors import TemperError
from temper.base.gpus import VISIBLE
from temper.base.machine import cores, gpu_sizes, is_first_process
from temper.batches import INFERENCE_BATCH, Batches, Indices, Targets, one_hot, predict
from temper.freezing.activations import Activations
from temper.freezing.classifier import BACKBONE, backbone_layers, open_from, trainable_parameters, unfreeze
from temper.freezing.cutting import boundary_tensors, names_of, open_part
from temper.freezing.unfreezing import openings, place
from temper.measures.calibration import Probabilities, fit_temperature, log_losses
from temper.packs import Pack
from temper.settings.fine_tune import Every, FineTune, Never, Settings
from temper.training.losses import balanced
from temper.training.phases import (
    STEPS_AT_ONCE,
    Gradual,
    Phase,
    Result,
    arrays,
    assign,
    fit,
    logged,
    try_steps,
    write_outcome,
)
from temper.training.unfinished import Arrays, unfinished

Labels = npt.NDArray[np.int32]
Inputs = npt.NDArray[np.uint8] | tuple[npt.NDArray[np.uint8], on_device.Numbers]  # images, or with augment_on: device


def epoch_batches(pack: Pack, classes: int, settings: Settings, epoch: int) -> Batches:
    """An epoch's training batches: the images that `sampling` draws, augmented anew, then mixed within each batch.

    With `fine_tune.augment_on: device`, they have plain images with the numbers by which the device changes them.

    The `Batches` are indexed by positions in the epoch's order, not by rows of the pack: the number of the batch, on
    which the mixing depends, follows from the position.
    """
    chosen, seed = settings.fine_tune, settings.seed
    magnitude = magnitudes(settings.aug, chosen.augmentation)
    rows = sampling.order(pack.labels, chosen.sampling, seed, epoch)
    repeats = sampling.repeats(rows)
    of_rows = one_hot(pack.labels, classes)

    def planned(places: Indices) -> mixing.Plan | None:
        batch = int(places[0]) // settings.batch_size
        return mixing.plan(len(places), *pack.image_shape[:2], chosen.augmentation, seed, epoch, batch)

    def read(places: Indices) -> Inputs:
        images = pack.images(rows[places])
        if chosen.augment_on == "device":
            size, mixed = pack.image_shape[:2], planned(places)
            return images, on_device.draw_numbers(rows[places], repeats[places], size, magnitude, seed, epoch, mixed)
        augment_images(images, rows[places], magnitude, seed, epoch, repeats[places])
        if (plan := planned(places)) is not None:
            mixing.mix_images(images, plan)
        return images

    def targets(places: Indices) -> Targets:
        plain = of_rows(rows[places])
        return plain if (plan := planned(places)) is None else mixing.mixed_targets(plain, plan)

    return Batches(read, targets, np.arange(len(rows)), settings.batch_size, cores(), chosen.augmentation.mixes)


def stored_batches(stored: Activations, labels: Labels, classes: int, settings: Settings, epoch: int) -> Batches:
    """An epoch's training batches of stored activations: the images that `sampling` draws, each in one of its views."""
    rows = sampling.order(labels, settings.fine_tune.sampling, settings.seed, epoch)
    views = sampling.views(rows, len(labels), stored.views, settings.seed, epoch)
    of_rows = one_hot(labels, classes)
    return Batches(
        lambda places: stored.take(rows[places], views[places]),
        lambda places: of_rows(rows[places]),
        np.arange(len(rows)),
        settings.batch_size,
        cores(),
    )


@dataclass(frozen=True)
class Material:
    """The model to train and its data.

    Attributes:
        model: the whole classifier, or only its unfrozen part, which shares the classifier's variables.
        training: returns the batches of the epoch with a given number, counted from 0.
        validation: the validation images without augmentation, or their stored activations.
        labels: the classes of the training images, int32 (N,).
        held_out: the classes of the validation images, int32 (M,).
    """

    model: keras.Model
    training: Callable[[int], Batches]
    validation: Batches
    labels: Labels
    held_out: Labels


def material(classifier: keras.Model, classes: int, settings: Settings) -> Material:
    """Opens the training and validation data: images, or with `fine_tune.views` their stored activations.

    Args:
        classifier: already unfrozen from `fine_tune.unfreeze_from` on. The boundary between its frozen and unfrozen
            layers decides which activations it needs.

    Raises:
        TemperError: an input is missing or damaged, or the activations were stored for another boundary.
    """
    train, held_out = (Pack(f"data/packed/{split}", classes) for split in ("train", "validation"))
    targets, order = one_hot(held_out.labels, classes), np.arange(len(held_out))
    if not settings.fine_tune.views:
        validation = Batches(held_out.images, targets, order, INFERENCE_BATCH)
        training = partial(epoch_batches, train, classes, settings)
        return Material(classifier, training, validation, train.labels, held_out.labels)
    layers = names_of(boundary_tensors(classifier.get_layer(BACKBONE)))
    stored = Activations("train", train.image_ids, layers, settings.fine_tune.views)
    plain = Activations("validation", held_out.image_ids, layers, views=1)
    validation = Batches(plain.plain, targets, order, INFERENCE_BATCH)
    training = partial(stored_batches, stored, train.labels, classes, settings)
    return Material(open_part(classifier), training, validation, train.labels, held_out.labels)


def plan(classifier: keras.Model, settings: Settings, pretrained: bool, labels: Labels, classes: int) -> Phase:
    """The training phase that the settings describe.

    Args:
        labels: the classes of the training images, int32 (N,), from which balanced class weights are computed.
        classes: how many classes there are.
    """
    chosen = settings.fine_tune
    backbone = classifier.get_layer(BACKBONE)
    return Phase(
        chosen.epochs,
        settings.lr,
        chosen.optimizer,
        chosen.schedule,
        chosen.early_stopping,
        chosen.select,
        counts_start=True,
        loss=chosen.loss,
        class_weights=balanced(labels, classes) if chosen.class_weights == "balanced" else None,
        average=chosen.average,
        scales=partial(scales, backbone, chosen.lr_decay) if chosen.lr_decay < 1 else None,
        accumulate=chosen.accumulate,
        scale_loss=chosen.precision == "mixed_float16",
        keep_on_interrupt=chosen.on_interrupt == "keep" and devices.spread().processes == 1,
        gradual=gradual(classifier, settings, pretrained),
    )


def gradual(classifier: keras.Model, settings: Settings, pretrained: bool) -> Gradual | None:
    """Gradual unfreezing as `fine_tune.unfreeze_further` describes it; None if it is off."""
    chosen, further = settings.fine_tune, settings.fine_tune.unfreeze_further
    if isinstance(further, Never):
        return None
    layers = backbone_layers(classifier)
    firsts = openings(layers, chosen.unfreeze_from, further.down_to, further.blocks)

    def opened(count: int) -> keras.Model:
        open_from(classifier, firsts[count], pretrained)
        return trained_model(classifier, settings)

    due = partial(openings_due, further, chosen.select)
    return Gradual(due, opened, tuple(place(layers, first) for first in firsts))


def opens_further(chosen: FineTune) -> str:
    """The part of the console line that says when more blocks are unfrozen; empty if none are."""
    further = chosen.unfreeze_further
    if isinstance(further, Never):
        return ""
    wait = further.epochs if isinstance(further, Every) else further.patience
    when = "every" if isinstance(further, Every) else f"whenever {chosen.select} has not improved for"
    return f"; {when} {wait} epoch(s) {further.blocks} more block(s), down to {further.down_to}"


def shown(chosen: FineTune) -> str:
    """The part of the console line that says that stored activations are used; empty if images are."""
    return f"; on the stored activations of {chosen.views} view(s) of each image" if chosen.views else ""


def trained_model(classifier: keras.Model, settings: Settings) -> keras.Model:
    """The model to train in place of a classifier, with the same variables.

    Its frozen BatchNorm layers are folded, and it augments its images if `fine_tune.augment_on` is `device`. Which
    layers are folded depends on what is frozen at the time of the call. Nothing is folded unless the precision is
    float32: a folded layer ignores the precision that is set for the layers it consists of.
    """
    chosen = settings.fine_tune
    model = fold_frozen_norms(classifier, BACKBONE) if chosen.precision == "float32" else classifier
    if chosen.augment_on == "host":
        return model
    return on_device.Augmenting(model, magnitudes(settings.aug, chosen.augmentation), chosen.augmentation.mixes)


def train_classifier(classifier: keras.Model, made: card.Card, settings: Settings) -> tuple[Result, Step]:
    """Trains the unfrozen layers, saves the classifier, and logs each epoch to metrics/fine_tune.

    Returns:
        The result of the phase, and which weights were saved.
    """
    count = len(made.classes)
    of = material(classifier, count, settings)
    before = predict(of.model, of.validation)
    phase = plan(classifier, settings, made.backbone.pretrained, of.labels, count)
    with unfinished("fine_tune", settings) as state, logged("fine_tune") as live:
        with computing_in(of.model.get_layer(BACKBONE), settings.fine_tune.precision):
            model = trained_model(of.model, settings)
            start = arrays(model.variables)
            result = fit(model, phase, of.training, of.validation, state, live)
        kept = keep_what_gains(of, model.variables, start, before, result, settings.fine_tune.margin)
        made = made.model_copy(update={"temperature": fit_temperature(kept.probabilities, of.held_out)})
        # Save inside the block: on leaving it, the state from which a killed run continues is deleted.
        if is_first_process():
            keras_files.save(classifier, "models/fine_tune.keras", made.as_entry())
    return outcome(result, kept, of.held_out), kept


def keep_what_gains(
    of: Material,
    variables: list[keras.Variable],
    start: Arrays,
    before: Probabilities,
    result: Result,
    margin: float,
) -> Step:
    """Gives a fine-tuned model the weights that `step_back` chooses.

    Args:
        variables: those of the model that was trained, with the weights of its best epoch.
        start: their values before the phase.
        before: the predictions for the validation images then.
    """

    def predict_halfway() -> Probabilities:
        assign(variables, halfway(start, result.last))
        return predict(of.model, of.validation)

    best = predict(of.model, of.validation) if result.best_epoch else None
    kept = step_back(before, best, predict_halfway, of.held_out, margin)
    if not kept.share:
        assign(variables, start)
    return kept


def outcome(result: Result, kept: Step, labels: Labels) -> Result:
    """The result of the phase, with the epoch and the validation figures of the weights that are kept."""
    if kept.share == 1 or not (kept.share or result.best_epoch):
        return result
    if not kept.share:
        return result.without_gain()
    right = kept.probabilities.argmax(axis=1) == labels
    loss = log_losses(kept.probabilities, labels).mean()
    figures = result.history[-1] | {"val_accuracy": float(right.mean()), "val_loss": float(loss)}
    return replace(result, best_epoch=len(result.history), best=figures, refused=result.best_epoch)


def in_words(result: Result, kept: Step, margin: float) -> str:
    """One console line: which weights were kept, and why."""
    accuracy = f"validation accuracy {result.best['val_accuracy']:.4f}"
    if kept.share == 1:
        return f"{accuracy} at epoch {result.best_epoch}"
    why = "no epoch was better on validation than the warm-up"
    if kept.best is not None:
        why = (
            f"the gain of epoch {result.refused} over the warm-up is {kept.best.in_standard_errors:.2f} standard "
            f"errors on validation, fine_tune.margin asks for {margin:g}"
        )
    if kept.gain is None:
        return f"{why}, and the weights halfway to the last epoch gain nothing: the warm-up's are kept, {accuracy}"
    half = f"the weights halfway to the last epoch, with a gain of {kept.gain.in_standard_errors:.2f}"
    return f"{why}: {half} standard errors, are kept, {accuracy}"


def what_a_step_computes(settings: Settings) -> dict[str, Any]:
    """The settings on which it may depend how much memory a training step needs, and so which batch size fits."""
    computed = settings.model_dump(exclude={"seed", "lr", "aug", "batch_size"})
    if settings.fine_tune.augment_on == "device":
        magnitude = asdict(magnitudes(settings.aug, settings.fine_tune.augmentation))
        computed["augments"] = [name for name, value in magnitude.items() if value]
    return computed


def with_a_size(settings: Settings) -> Settings:
    """The settings with a number as the batch size: the one they give or, for `auto`, the largest that fits.

    Call before any computation: once this process has computed on a GPU, it may hold all of its memory, and the child
    processes that try batch sizes would find none.

    Raises:
        TemperError: not even one image fits, or several processes train together: each would find a size of its own.
    """
    size = settings.images_in_a_batch
    if size != "auto":
        return settings.with_batches_of(size)
    if devices.trains_together():
        raise TemperError("fine_tune.batch_size: expected a number where processes train together, received auto")
    images = len(Pack("data/packed/train"))
    command = batch_size.command("stages.fine_tune.__main__", "try_batches_of")
    versions = [metadata.version("keras"), devices.library()]
    made = card.read("models/warm_up.keras").model_dump(exclude={"temperature"})
    size = batch_size.kept(
        [what_a_step_computes(settings), versions, made, images.bit_length(), gpu_sizes(os.environ.get(VISIBLE))],
        lambda: batch_size.largest(partial(batch_size.fits_in_child, command), images),
    )
    print(f"batch_size {size}: the largest power of two that fits (fine_tune.batch_size: auto)")
    return settings.with_batches_of(size)


def try_batches_of(size: int) -> None:
    """Trains a few steps with batches of `size` blank images; runs in a child process, which fails if memory runs out.

    It unfreezes every layer that the run will unfreeze at any time, because that needs the most memory.

    Raises:
        TemperError: there is no GPU.
    """
    made, settings = card.read("models/warm_up.keras"), loading.load(Settings)
    if keras.distribution.list_devices()[0].startswith("cpu"):
        raise TemperError(f"expected a GPU, which {keras.backend.backend()} does not find: see docs/training.md")
    devices.use(made.backbone.devices)
    classifier, chosen = keras_files.load("models/warm_up.keras"), settings.fine_tune
    further = chosen.unfreeze_further
    widest = chosen.unfreeze_from if isinstance(further, Never) else further.down_to
    phase = plan(classifier, settings, made.backbone.pretrained, np.zeros(1, np.int32), len(made.classes))
    unfreeze(classifier, widest, made.backbone.pretrained)
    shape = (made.preparation.height, made.preparation.width, 3)
    of_class = one_hot(np.zeros(1, np.int32), len(made.classes))
    rows = np.zeros(STEPS_AT_ONCE * size, np.int64)

    def blank(rows: Indices) -> Inputs:
        images = np.zeros((len(rows), *shape), np.uint8)
        numbers = np.zeros((len(rows), on_device.COLUMNS), np.float32)
        return (images, numbers) if chosen.augment_on == "device" else images

    batches = Batches(blank, of_class, rows, size)
    with computing_in(classifier.get_layer(BACKBONE), chosen.precision):
        try_steps(trained_model(classifier, settings), phase, batches)


def main(settings: Settings) -> None:
    devices.join()
    settings = with_a_size(settings)
    print(devices.described())
    made = card.read("models/warm_up.keras")
    devices.use(made.backbone.devices)
    keras.utils.set_random_seed(settings.seed)
    classifier = keras_files.load("models/warm_up.keras")
    unfreeze(classifier, settings.fine_tune.unfreeze_from, made.backbone.pretrained)
    open_layers = [layer.name for layer in classifier.get_layer("backbone").layers if layer.trainable_weights]
    print(
        f"fine-tuning {trainable_parameters(classifier):,} of {classifier.count_params():,} parameters: the head and "
        f"{len(open_layers)} layers of the backbone, lr {settings.lr:g}{opens_further(settings.fine_tune)}"
        f"{shown(settings.fine_tune)}"
    )
    result, kept = train_classifier(classifier, made, settings)
    facts: dict[str, float] = {"share": kept.share}
    if kept.best is not None and math.isfinite(kept.best.standard_error):
        facts |= {"gain": kept.best.mean, "gain_standard_error": kept.best.standard_error}
    if settings.fine_tune.batch_size == "auto":
        facts["batch_size"] = settings.batch_size
    write_outcome("fine_tune", result, trainable_parameters=trainable_parameters(classifier), **facts)
    print(f"fine-tune: {in_words(result, kept, settings.fine_tune.margin)}")


if __name__ == "__main__":
    running.run(main, Settings, together=True)
