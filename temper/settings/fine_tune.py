"""The settings of `fine_tune`, the second phase: it trains the head and the unfrozen part of the backbone."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from temper.settings.base import (
    Count,
    FromText,
    Magnitude,
    NotNegative,
    Rate,
    Section,
    Seed,
    StageSettings,
    Whole,
    Width,
)
from temper.settings.mixing import MixedAugmentation
from temper.settings.place import Place
from temper.settings.training import (
    Adam,
    Average,
    Cosine,
    CrossEntropy,
    EarlyStopping,
    Loss,
    NoAverage,
    Optimizer,
    Schedule,
    Select,
    refuse_steps_beyond_the_end,
)


class Never(Section):
    """No gradual unfreezing: what `unfreeze_from` opens trains from the first epoch on, and nothing else does."""

    name: Literal["never"] = "never"


class Further(Section):
    """Gradual unfreezing (Howard and Ruder, arXiv:1801.06146, who open a layer each epoch): what every way takes."""

    blocks: Count = Field(1, description="how many more blocks each opening unfreezes, from the head downwards")
    down_to: Place = Field(
        "all",
        description="where unfreezing ends, below unfreeze_from: a layer or block, a share of the layers, or all",
    )

    @model_validator(mode="after")
    def _ends_somewhere(self) -> "Further":
        if self.down_to == "none":
            raise ValueError("down_to: expected a layer or block, a share of the layers, or all, received none")
        return self


class Every(Further):
    """More of the backbone opens after every `epochs` epochs."""

    name: Literal["every"]
    epochs: Count = Field(1, description="the number of epochs between two openings, and before the first one")


class OnPlateau(Further):
    """More of the backbone opens when the figure that `select` names has not improved for `patience` epochs."""

    name: Literal["plateau"]
    patience: Count = Field(
        1, description="epochs without improvement before more opens; counted anew after each opening"
    )
    min_delta: NotNegative = Field(0.0, description="only a gain larger than this counts as an improvement")


UnfreezeFurther = Annotated[Never | Every | OnPlateau, Field(discriminator="name")]

# How often an epoch shows the images of each class; `FineTune.sampling` explains the values.
Sampling = Literal["natural", "balanced", "sqrt"]


class FineTune(Section):
    """The second phase, which trains with the top-level lr and aug."""

    unfreeze_from: Place = Field(
        "all",
        description="where the trainable part of the backbone begins: a layer or block, by name; a share of the "
        "layers, counted from the head, such as 0.3; all (the whole backbone trains); or none (the head alone trains)",
    )
    unfreeze_further: UnfreezeFurther = Field(
        Never(), description="gradual unfreezing: when more of the backbone opens to training during the phase"
    )
    lr_decay: Annotated[float, Field(gt=0, le=1), FromText] = Field(
        1.0,
        description="each block of the backbone trains at this fraction of the learning rate of the block above it, "
        "and the last block at this fraction of the head's; 1: all at lr",
    )
    epochs: Count = Field(8, description="the maximum number of epochs")
    batch_size: Width | Literal["auto"] | None = Field(
        None,
        description="images in a batch; auto: the largest power of two that fits on the GPU, found by trial once and "
        "remembered; null: the top-level batch_size",
    )
    optimizer: Optimizer = Field(Adam(), description="the optimizer and its own settings")
    accumulate: Count = Field(
        1, description="the number of batches whose gradients are averaged into one step of the optimizer"
    )
    schedule: Schedule = Field(Cosine(), description="how the learning rate changes during the phase")
    loss: Loss = Field(
        CrossEntropy(), description="the loss that training minimizes; validation always measures cross-entropy"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: the loss weights each class in inverse proportion to its number of images, so images "
        "of rare classes count more",
    )
    average: Average = Field(
        NoAverage(),
        description="which weights are validated and kept: those of the last step (none) or a moving average (ema)",
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "float32", description="the precision in which the backbone computes; weights and saved model stay float32"
    )
    early_stopping: EarlyStopping = Field(EarlyStopping(), description="when the phase ends before its last epoch")
    on_interrupt: Literal["resume", "keep"] = Field(
        "resume",
        description="what Ctrl-C does: resume stops the run, and the next run continues after the last finished epoch; "
        "keep ends the phase with the best epoch so far, and the run goes on",
    )
    select: Select = Field(
        "val_loss", description="the validation figure that decides which epoch is kept; the other one breaks ties"
    )
    margin: NotNegative = Field(
        2.0,
        description="the best epoch must beat the warm-up on validation by at least this many standard errors of the "
        "paired difference; otherwise the weights halfway from the warm-up to the last epoch are kept if they beat it "
        "at all, and else the warm-up's; 0: any gain is enough",
    )
    augmentation: MixedAugmentation = Field(
        MixedAugmentation(), description="the magnitude of single transformations, and the mixing of images"
    )
    augment_on: Literal["host", "device"] = Field(
        "host",
        description="where images are augmented: on the host, by the processor's cores while the device trains, or on "
        "the device, in the training step itself, for a GPU that has to wait for too few cores; device does everything "
        "but blur, jpeg, erasing and randaugment",
    )
    views: Whole = Field(
        0,
        description="0: every epoch augments the images anew; 1 or more: draws this many views of each training image "
        "once (the plain image and augmented ones), stores what the frozen part of the backbone makes of them, and "
        "trains on that",
    )
    sampling: Sampling = Field(
        "natural",
        description="which images an epoch shows. natural: every image once; balanced and sqrt: as many images in "
        "all, but each class equally often (balanced) or in proportion to the square root of its count (sqrt), so that "
        "images of rare classes are repeated",
    )

    @model_validator(mode="after")
    def _schedule_ends_in_time(self) -> "FineTune":
        refuse_steps_beyond_the_end(self.schedule, self.epochs)
        return self

    @model_validator(mode="after")
    def _classes_are_balanced_once(self) -> "FineTune":
        if self.class_weights == "balanced" and self.sampling != "natural":
            raise ValueError(
                f"class_weights: expected none with sampling: {self.sampling}, which balances the classes already, "
                "received balanced; remove one of the two"
            )
        return self

    @model_validator(mode="after")
    def _something_is_left_to_open(self) -> "FineTune":
        if not isinstance(self.unfreeze_further, Never) and self.unfreeze_from == "all":
            raise ValueError(
                "unfreeze_further: expected an unfreeze_from that leaves blocks to open (none, where the head alone "
                "trains at first, or a layer, a block or a share), received unfreeze_from: all"
            )
        return self

    @model_validator(mode="after")
    def _more_opens_before_the_end(self) -> "FineTune":
        further = self.unfreeze_further
        if isinstance(further, Never):
            return self
        name = "epochs" if isinstance(further, Every) else "patience"
        wait = further.epochs if isinstance(further, Every) else further.patience
        if wait >= self.epochs:
            raise ValueError(
                f"unfreeze_further.{name}: expected less than the phase's {self.epochs} epochs, received {wait}"
            )
        stopping = self.early_stopping
        ends_first = stopping.patience is not None and stopping.patience <= wait and stopping.min_epochs <= wait
        if isinstance(further, OnPlateau) and ends_first:
            raise ValueError(
                f"unfreeze_further.patience: expected less than early_stopping.patience ({stopping.patience}), or the "
                f"phase ends where more would open, received {wait}"
            )
        return self

    @model_validator(mode="after")
    def _what_is_stored_stays_true(self) -> "FineTune":
        if not self.views:
            return self
        wanted = f"views: expected 0, or {{}}; received {self.views}"
        if self.unfreeze_from == "all":
            frozen = "an unfreeze_from that leaves a part of the backbone frozen (a layer, a block, a share, or none)"
            raise ValueError(f"{wanted.format(frozen)} with unfreeze_from: all")
        if not isinstance(self.unfreeze_further, Never):
            raise ValueError(f"{wanted.format('unfreeze_further: never, for what opens later cannot be stored')}")
        if self.batch_size == "auto":
            raise ValueError(
                wanted.format("a number as batch_size, because auto tries whole images and views train on activations")
            )
        if self.augment_on == "device":
            raise ValueError(wanted.format("augment_on: host, because stored views are drawn there"))
        for name in ("mixup", "cutmix"):
            if getattr(self.augmentation, name):
                without = f"augmentation.{name}: 0, for it mixes the pixels of images anew in each epoch"
                raise ValueError(wanted.format(without))
        if self.views > self.epochs:
            raise ValueError(wanted.format(f"at most the phase's {self.epochs} epochs, each of which shows one view"))
        return self

    @model_validator(mode="after")
    def _the_device_can_augment(self) -> "FineTune":
        policy = self.augmentation.randaugment
        on = {"blur": self.augmentation.blur, "jpeg": self.augmentation.jpeg, "erasing": self.augmentation.erasing}
        for name, magnitude in {**on, "randaugment": policy.magnitude if policy else 0}.items():
            if self.augment_on == "device" and magnitude:
                raise ValueError(
                    f"augment_on: expected host with augmentation.{name}, which no device computes, received device; "
                    "remove one of the two"
                )
        return self

    @model_validator(mode="after")
    def _decay_has_blocks(self) -> "FineTune":
        if self.lr_decay < 1 and self.unfreeze_from == "none" and isinstance(self.unfreeze_further, Never):
            raise ValueError("lr_decay: expected 1 where unfreeze_from is none, for no block trains; remove it")
        return self


class Settings(StageSettings):
    """What `fine_tune` reads."""

    seed: Seed
    batch_size: Width
    lr: Rate = Field(description="the learning rate that the fine-tune starts with")
    aug: Magnitude = Field(
        description="how strongly the fine-tune augments its images: one magnitude, 0 to 1, for all transformations "
        "that have none of their own"
    )
    fine_tune: FineTune = Field(
        description="the second phase, which trains head and backbone with the top-level lr and aug"
    )

    @model_validator(mode="after")
    def _mixing_has_partners(self) -> "Settings":
        for name in ("mixup", "cutmix"):
            if self.images_in_a_batch == 1 and getattr(self.fine_tune.augmentation, name):
                raise ValueError(
                    f"fine_tune.augmentation.{name} mixes the images of a batch: expected a batch_size of at least 2, "
                    "received 1"
                )
        return self

    @property
    def images_in_a_batch(self) -> int | Literal["auto"]:
        """The batch size, or "auto" if it has still to be found."""
        own = self.fine_tune.batch_size
        return self.batch_size if own is None else own

    def with_batches_of(self, size: int) -> "Settings":
        """The same settings with this batch size."""
        return self.model_copy(update={"batch_size": size})
