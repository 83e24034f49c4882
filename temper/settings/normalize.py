"""The settings of `normalize`: names, splits, and which images may be used."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from temper.settings.base import Count, Fraction, OrNone, Section, Seed, StageSettings, Text


def _no_name_twice(renamed: dict[str, str | None]) -> dict[str, str | None]:
    names = [" ".join(old.split()) for old in renamed]
    twice = [name for name in names if names.count(name) > 1 or not name]
    if twice or any(new is not None and not new.strip() for new in renamed.values()):
        raise ValueError(f"expected each published name once, with a new name or null, received {renamed}")
    return renamed


Renamed = Annotated[dict[Text, Text | None], AfterValidator(_no_name_twice)]


class Normalize(Section):
    """How the rows of the raw tables become images with a class and a split."""

    labels: Literal["fine", "coarse"] = Field(
        "fine", description="which labels become the classes, if a source publishes fine and coarse ones"
    )
    rename: Renamed = Field(
        {}, description="a mapping from published names to classes; null leaves a published class out"
    )
    splits: dict[Text, Literal["train", "validation", "test"] | None] = Field(
        {},
        description="a mapping from the names of published splits to train, validation or test; null leaves the "
        "split's images out",
    )
    only_train: list[Text] = Field(
        [], description="names of sources in `fetch` whose photos are used in training only, never to measure a model"
    )
    classes: list[Text] | None = Field(None, description="only these classes are used; null: all")
    min_size: Count = Field(
        1, description="minimum length of an image's shorter side in pixels; smaller images are left out"
    )
    min_per_class: Count = Field(1, description="classes with fewer usable images are left out")
    max_per_class: Count | None = Field(
        None, description="the most training images of one class; a hash decides which are kept; null: no limit"
    )
    balance: Literal["none", "smallest"] = Field(
        "none", description="smallest: no class keeps more training images than the rarest class has"
    )
    draw: Literal["hash", "stratified"] = Field(
        "hash",
        description="how images are drawn into splits. hash: each image by its own content, so that added photos never "
        "move old ones to another split; stratified: exact shares of each class, for sets that do not grow",
    )
    validation: Fraction = Field(
        0.15, description="the share of the images drawn for validation, if no validation split is published"
    )
    test: Fraction = Field(0.2, description="the share of the images drawn for test, if no test split is published")
    near_duplicates: Annotated[Annotated[int, Field(ge=0, le=8)] | None, OrNone] = Field(
        4,
        description="images whose 64-bit perceptual hashes differ in at most this many bits, 0 to 8, count as the same "
        "picture; none: only images with equal bytes do",
    )
    duplicates: Literal["report", "remove"] = Field(
        "report",
        description="what to do with training images that have the same bytes as another training image of their class",
    )
    leaks: Literal["report", "remove"] = Field(
        "report",
        description="what to do with training images that repeat an image of a published validation or test split",
    )
    conflicts: Literal["report", "remove"] = Field(
        "report", description="what to do with images that repeat an image of another class"
    )

    @model_validator(mode="after")
    def _its_keys_fit_each_other(self) -> "Normalize":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must be below 1, received {self.validation} + {self.test}")
        if self.max_per_class is not None and self.min_per_class > self.max_per_class:
            raise ValueError(
                f"min_per_class must not be above max_per_class, received {self.min_per_class} and {self.max_per_class}"
            )
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes: expected each class once, received {self.classes}")
        return self


class Settings(StageSettings):
    """What `normalize` reads; of `fetch` only the names of the sources."""

    seed: Seed = Field(description="the seed of every random draw; another seed gives another split")
    fetch: dict[str, Any]
    normalize: Normalize = Field(description="the classes, the splits, and what happens to repeated pictures")

    @model_validator(mode="after")
    def _only_known_sources_and_one_to_measure_on(self) -> "Settings":
        unknown = [name for name in self.normalize.only_train if name not in self.fetch]
        if unknown or len(set(self.normalize.only_train)) >= len(self.fetch):
            raise ValueError(
                f"normalize.only_train: expected names of `fetch` ({', '.join(self.fetch)}) but not all of them, "
                f"received {self.normalize.only_train}"
            )
        return self
