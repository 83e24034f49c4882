"""The settings of `normalize`: names, splits, and which images may be used."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from temper.settings.base import Count, Fraction, OrNone, Section, Seed, StageSettings, Text


def _no_name_twice(renamed: dict[str, str | None]) -> dict[str, str | None]:
    names = [" ".join(old.split()) for old in renamed]
    twice = [name for name in names if names.count(name) > 1 or not name]
    if twice or any(new is not None and not new.strip() for new in renamed.values()):
        raise ValueError(f"expected every published name once, and names or null for them, received {renamed}")
    return renamed


Renamed = Annotated[dict[Text, Text | None], AfterValidator(_no_name_twice)]


class Normalize(Section):
    """What becomes of the rows of the raw tables."""

    labels: Literal["fine", "coarse"] = Field("fine", description="which names, where a source publishes two")
    rename: Renamed = Field({}, description="published name: class; null leaves a class out")
    splits: dict[Text, Literal["train", "validation", "test"] | None] = Field(
        {}, description="published split: what it means; null leaves its images out"
    )
    only_train: list[Text] = Field([], description="named sources whose photos train and are never measured on")
    classes: list[Text] | None = Field(None, description="only these classes; null: all")
    min_size: Count = Field(1, description="pixels of the shorter side; smaller images are left out")
    min_per_class: Count = Field(1, description="classes with fewer images are left out")
    max_per_class: Count | None = Field(None, description="training images of a class, drawn by a hash; null: all")
    balance: Literal["none", "smallest"] = Field(
        "none", description="smallest: as many training images of each class as of the rarest"
    )
    draw: Literal["hash", "stratified"] = Field(
        "hash",
        description="hash: each image by itself, so that added photos move no old one; stratified: exact shares of "
        "each class, for sets that do not grow",
    )
    validation: Fraction = Field(0.15, description="share of the images, where no validation split is published")
    test: Fraction = Field(0.2, description="share of the images, where no test split is published")
    near_duplicates: Annotated[Annotated[int, Field(ge=0, le=8)] | None, OrNone] = Field(
        4,
        description="bits of the 64-bit perceptual hash that may differ in one picture, 0 to 8; none: equal bytes only",
    )
    duplicates: Literal["report", "remove"] = Field(
        "report", description="training images with the same bytes as another training image of their class"
    )
    leaks: Literal["report", "remove"] = Field(
        "report", description="training images that repeat one of a published validation or test split"
    )
    conflicts: Literal["report", "remove"] = Field("report", description="images that repeat one of another class")

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

    seed: Seed = Field(description="of every random draw; another seed is another split")
    fetch: dict[str, Any]
    normalize: Normalize = Field(description="names, classes, splits, repeated pictures")

    @model_validator(mode="after")
    def _only_known_sources_and_one_to_measure_on(self) -> "Settings":
        unknown = [name for name in self.normalize.only_train if name not in self.fetch]
        if unknown or len(set(self.normalize.only_train)) >= len(self.fetch):
            raise ValueError(
                f"normalize.only_train: expected names of `fetch` ({', '.join(self.fetch)}) but not all of them, "
                f"received {self.normalize.only_train}"
            )
        return self
