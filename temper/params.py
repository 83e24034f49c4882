"""The schema of params.yaml, and the one place that reads it.

Every key that is not marked optional must be there: a misspelt or missing key stops a stage before any work.
Numbers may come as strings: `dvc exp run -S lr=3e-6` writes `lr: 3e-06`, which YAML 1.1 reads as text.
"""

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from temper.errors import TemperError


def _number(value: Any) -> Any:
    """A number that YAML 1.1 took for text (`3e-06`, `1e20`) as a float; anything else as it is."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _height_width(value: Any) -> Any:
    """`224` as (224, 224), `[320, 380]` as (320, 380)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    return tuple(value) if isinstance(value, list) else value


# Checked against keras.applications by a test: importing Keras here would cost every stage seconds.
BackboneName = Literal[
    "tiny",
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtSmall",
    "ConvNeXtTiny",
    "ConvNeXtXLarge",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2L",
    "EfficientNetV2M",
    "EfficientNetV2S",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "NASNetLarge",
    "NASNetMobile",
    "ResNet101",
    "ResNet101V2",
    "ResNet152",
    "ResNet152V2",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "VGG19",
    "Xception",
]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Rate = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Magnitude = Annotated[Number, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
ImageSize = Annotated[tuple[Pixels, Pixels], BeforeValidator(_height_width)]


class Section(BaseModel):
    """A mapping of params.yaml: no key but these, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


SourceName = Literal["digits", "folder", "cifar100", "flowers", "kaggle", "stanford_cars", "cub", "csv", "urls"]


class Nothing(Section):
    """A choice that has no settings: `{}`."""


Text = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+(/versions/[1-9][0-9]*)?)?$")]


class Cifar100Source(Section):
    """`source: cifar100`: the official python archive, from a URL or a local path, known by its checksum."""

    archive: Text
    sha256: Sha256


class FlowersSource(Section):
    """`source: flowers`: TensorFlow's flower_photos.tgz, from a URL or a local path, known by its checksum."""

    archive: Text
    sha256: Sha256


class CubSource(Section):
    """`source: cub`: CUB_200_2011.tgz, from a URL or a local path, known by its checksum."""

    archive: Text
    sha256: Sha256


def _layout(pattern: str) -> str:
    fields = re.findall(r"\{[^}]*\}", pattern)
    if set(fields) - {"{split}", "{label}", "{name}"} or len(set(fields)) < len(fields) or "{name}" not in fields:
        raise ValueError(
            f"expected a path with {{name}}, and {{split}}, {{label}} and * where they fit, received {pattern!r}"
        )
    return pattern


Layout = Annotated[str, AfterValidator(_layout)]


class KaggleSource(Section):
    """`source: kaggle`: a dataset (owner/name, owner/name/versions/3) or a competition (name)."""

    dataset: Slug
    files: list[Text]  # by name; []: all of it
    # Patterns such as "{split}/{label}/{name}", of which the first that fits counts; null: as `folder`.
    layout: Annotated[list[Layout], Field(min_length=1)] | None
    splits: dict[str, Literal["train", "validation", "test"]]  # folders that no split is usually called


class StanfordCarsSource(Section):
    """`source: stanford_cars`: cars_train, cars_test and the devkit, from Kaggle or from `local`."""

    kaggle: Slug | None  # null: local


class CsvSource(Section):
    """`source: csv`: a table of file names and labels beside a folder of images, from Kaggle or from `local`."""

    kaggle: Slug | None  # null: local
    table: Text  # a path inside
    images: str  # the folder of the table's images, a path inside; "": the table's names are whole paths
    unlabelled: Text | None  # a folder of further images, a path inside
    image_column: Text
    label_column: Text
    split_column: Text | None


class UrlsSource(Section):
    """`source: urls`: a CSV, TSV or Parquet of url,label[,split], or a GBIF Darwin Core archive, at `local`."""

    label: Text  # the column of the label; in a Darwin Core archive any of occurrence.txt: species, genus, ...
    per_host: Count  # how many downloads at a time from one host
    attempts: Count  # of each download, with growing pauses between them
    failures: Fraction  # the share that may fail for good


class Sources(Section):
    """Where the photos come from: the settings of each source. Those of the chosen one must be there."""

    local: Text  # what of a source lies on this machine: DVC watches it, so that a new photo is noticed
    digits: Nothing | None = None
    folder: Nothing | None = None
    cifar100: Cifar100Source | None = None
    flowers: FlowersSource | None = None
    kaggle: KaggleSource | None = None
    stanford_cars: StanfordCarsSource | None = None
    cub: CubSource | None = None
    csv: CsvSource | None = None
    urls: UrlsSource | None = None


def _no_name_twice(renamed: dict[str, str | None]) -> dict[str, str | None]:
    names = [" ".join(old.split()) for old in renamed]
    twice = [name for name in names if names.count(name) > 1 or not name]
    if twice or any(new is not None and not new.strip() for new in renamed.values()):
        raise ValueError(f"expected every published name once, and names or null for them, received {renamed}")
    return renamed


Renamed = Annotated[dict[Text, Text | None], AfterValidator(_no_name_twice)]


class Auxiliary(Section):
    """A second source, whose labelled images join train and nothing else."""

    source: SourceName | Literal["none"]
    local: Text  # as `sources.local`
    settings: dict[str, Any]  # as of that source in `sources`
    rename: Renamed  # its classes: to those of the first source; null: left out

    def of_source(self) -> Section:
        """The settings, validated as those of the chosen source."""
        kind = Nothing if self.source == "none" else _sections_in(Sources.model_fields[self.source].annotation)[0]
        return kind.model_validate({} if self.source == "none" else self.settings)

    @model_validator(mode="after")
    def _settings_fit_the_source(self) -> "Auxiliary":
        try:
            self.of_source()
        except ValidationError as error:
            problem = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
            key = ".".join(map(str, problem["loc"]))
            raise ValueError(f"settings.{key}, as of sources.{self.source}: {problem['msg']}") from None
        return self


class Normalize(Section):
    """What becomes of the rows of the raw table: who trains, who validates, who tests, and who may not."""

    labels: Literal["fine", "coarse"]  # coarse: the second label, of a source that publishes one
    rename: Renamed  # published name: class; null: left out
    classes: list[Text] | None  # only these; null: all
    min_size: Annotated[int, Field(ge=1)]  # pixels of an image's shorter side
    min_per_class: Count  # classes with fewer images are left out
    max_per_class: Count | None  # training images of a class, the rest drawn out by a hash; null: all
    balance: Literal["none", "smallest"]  # smallest: as many training images of each class as of the rarest
    validation: Fraction  # share of the images, where the source publishes no validation split
    test: Fraction  # share of the images, where the source publishes no test split
    near_duplicates: Annotated[int, Field(ge=0, le=8)] | None  # bits of 64 that may differ; null: equal bytes only
    duplicates: Literal["report", "remove"]  # training images whose bytes another training image of the class has
    leaks: Literal["report", "remove"]  # training images that repeat one of another published split
    conflicts: Literal["report", "remove"]  # images that repeat one of another class

    @model_validator(mode="after")
    def _some_are_left_to_train(self) -> "Normalize":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation + test must be below 1, received {self.validation} + {self.test}")
        return self


class Engine(Section):
    """Where a detector runs; with the same boxes either way."""

    engine: Literal["local", "ray"] = "local"
    actors: Count = 1  # of Ray, each with a detector and a core
    gpus: Annotated[Number, Field(ge=0)] = 0.0  # of an actor: 0.5 puts two on one GPU


class OnnxDetector(Engine):
    """`detect.detector: onnx`: any model in YOLOX's format, run by OpenCV itself."""

    weights: Annotated[str, Field(min_length=1)]  # a URL or a local path
    sha256: Sha256
    input_size: ImageSize  # (height, width) that the model was exported for
    classes: Literal["coco"] | list[str] = "coco"  # the names of its classes, in the order of its output
    floor: Annotated[Number, Field(gt=0, lt=1)]  # boxes below this score are not stored


class Detectron2Detector(Engine):
    """`detect.detector: detectron2`: any detector of its model zoo, in an environment of its own."""

    config: Annotated[str, Field(min_length=1)]  # its name in the model zoo, without .yaml
    weights: Annotated[str, Field(min_length=1)]  # zoo: those of the config; or a URL or a local path
    sha256: Sha256 | None = None  # of weights that are not from the zoo
    device: str  # auto, cpu, cuda, cuda:1, ...
    batch: Count
    floor: Annotated[Number, Field(gt=0, lt=1)]  # boxes below this score are not stored
    environment: str = ".venv-detectron2"  # its folder, from the repository's root

    @model_validator(mode="after")
    def _weights_are_known_by_their_checksum(self) -> "Detectron2Detector":
        if (self.weights == "zoo") != (self.sha256 is None):
            raise ValueError(f"expected sha256 with weights of your own and null with zoo, received {self.sha256}")
        return self


class Detect(Section):
    """The detector that finds objects, and the settings of each; only those of the chosen one count."""

    detector: Literal["none", "published", "onnx", "detectron2"]
    none: Nothing | None = None
    published: Nothing | None = None  # the boxes that the source itself ships
    onnx: OnnxDetector | None = None
    detectron2: Detectron2Detector | None = None

    @model_validator(mode="after")
    def _the_detector_has_settings(self) -> "Detect":
        if getattr(self, self.detector) is None:
            raise ValueError(f"detector is {self.detector}: add detect.{self.detector}, see recipes/digits.yaml")
        return self


class MainBox(Section):
    """Which of the detected objects is the main one. Applied when boxes are read: no change runs a detector."""

    classes: list[str] | None  # null: any; published boxes without a class count whatever is here
    score: Magnitude  # and above; the detector stored nothing below its `floor`
    overlap: Magnitude  # of two boxes with a larger intersection over union the weaker goes, whatever their classes
    pick: Literal["largest", "most_central", "highest_score"]
    min_box: Annotated[int, Field(ge=0)]  # pixels of its shorter side; for a smaller one the whole image is used


class Pack(Section):
    """How a photo becomes an array of `image_size`."""

    fit: Literal["stretch", "crop", "pad"]
    margin: Annotated[Number, Field(ge=0, le=2)]  # added on each side of a detected box, in fractions of it
    box: MainBox


class Backbone(Section):
    """A model of keras.applications by its class name, or `tiny`."""

    name: BackboneName
    arguments: dict[str, Any]  # of its class: alpha, ...
    weights: Annotated[str, Field(min_length=1)]  # imagenet, none, or the path of a weights file
    sha256: Sha256 | None = None  # of the weights file: DVC sees a new file under an old path only by it
    input_size: ImageSize | None  # resized to this inside the model; null: image_size


class Augmentation(Section):
    """The magnitude of each transformation; `null` follows `aug`, 0 switches it off."""

    flip: Magnitude | None = None
    rotation: Magnitude | None = None
    zoom: Magnitude | None = None
    translation: Magnitude | None = None
    brightness: Magnitude | None = None
    contrast: Magnitude | None = None
    hue: Magnitude | None = None


class Head(Section):
    """What is put on the backbone: dense layers, then one output a class."""

    units: list[Count]
    activation: Literal["relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid"]
    batch_norm: bool
    dropout: Fraction


class Optimizer(Section):
    """Adam, AdamW (`weight_decay`) or SGD (`momentum`)."""

    name: Literal["adam", "adamw", "sgd"]
    momentum: Fraction = 0.9
    weight_decay: Annotated[Number, Field(ge=0)] = 0.004


class Constant(Section):
    """The rate stays at lr."""

    name: Literal["constant"]


class Piecewise(Section):
    """`epochs: [7, 8], factors: [0.5, 0.05]`: lr for 7 epochs, half of it to epoch 8, then a twentieth."""

    name: Literal["piecewise"]
    epochs: list[Count]
    factors: list[Rate]

    @model_validator(mode="after")
    def _as_many_factors_as_epochs(self) -> "Piecewise":
        if len(self.epochs) != len(self.factors) or self.epochs != sorted(set(self.epochs)):
            raise ValueError(f"expected rising epochs and a factor for each, received {self.epochs}, {self.factors}")
        return self


class Cosine(Section):
    """From lr down to lr * end along half a cosine (Loshchilov & Hutter, arXiv:1608.03983, without restarts)."""

    name: Literal["cosine"]
    end: Annotated[Number, Field(ge=0, le=1)] = 0.0


class Plateau(Section):
    """lr times factor whenever the validation loss has not improved for `patience` epochs (as ReduceLROnPlateau)."""

    name: Literal["plateau"]
    factor: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    patience: Count = 3
    min_delta: Annotated[Number, Field(ge=0)] = 1e-4
    cooldown: Annotated[int, Field(ge=0)] = 0
    min_lr: Annotated[Number, Field(ge=0)] = 0.0


Schedule = Annotated[Constant | Piecewise | Cosine | Plateau, Field(discriminator="name")]


class EarlyStopping(Section):
    """Ends a heat when val_accuracy has not risen by more than min_delta for `patience` epochs; null: never."""

    patience: Count | None
    min_delta: Annotated[Number, Field(ge=0)] = 0.0


class WarmUp(Section):
    """The first heat: the head alone, on the embeddings of the frozen backbone."""

    views: Count  # embeddings of each training image: 1 is the plain image, more are augmented ones
    aug: Magnitude  # how strongly the further views are augmented
    augmentation: Augmentation
    head: Head
    epochs: Count
    lr: Rate
    optimizer: Optimizer
    schedule: Schedule
    early_stopping: EarlyStopping


class FineTune(Section):
    """The second heat: the head and the opened part of the backbone, at the top-level lr, with the top-level aug."""

    unfreeze_from: str  # a layer or block name, all, or none
    epochs: Count
    optimizer: Optimizer
    schedule: Schedule
    early_stopping: EarlyStopping
    augmentation: Augmentation


class Params(Section):
    """params.yaml."""

    source: SourceName
    image_size: ImageSize  # (height, width) of the packed images
    batch_size: Count
    lr: Rate  # of the fine-tune
    aug: Magnitude  # of the fine-tune
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    sources: Sources
    auxiliary: Auxiliary
    normalize: Normalize
    detect: Detect
    pack: Pack
    backbone: Backbone
    warm_up: WarmUp
    fine_tune: FineTune

    @model_validator(mode="after")
    def _the_source_has_settings(self) -> "Params":
        if getattr(self.sources, self.source) is None:
            raise ValueError(
                f"source is {self.source}: add its settings as sources.{self.source}, see recipes/digits.yaml"
            )
        return self


def load(path: str | Path) -> Params:
    """Reads and validates a params file.

    Raises:
        TemperError: the file is missing, is no YAML or does not satisfy the schema; the message names the key.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TemperError(f"{path}: no such file; copy one of recipes/ to it") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date of month 13
        raise TemperError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise TemperError(f"{path}: expected a mapping of keys, received {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # A misspelt key is unknown and makes another one missing: its own line helps more.
        problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise TemperError(f"{path}: {_explain(problems[0], content)}{more}") from None


def _explain(problem: ErrorDetails, content: dict[str, Any]) -> str:
    """One problem that pydantic found, with the key's full name, what was expected and what was received."""
    place = _keys_in_file(problem, content)
    key = ".".join(map(str, place))
    if problem["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        close = difflib.get_close_matches(str(place[-1]), known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"unknown key {key}: expected one of {', '.join(known)}{hint}"
    if problem["type"] == "missing":
        return f"missing key {key}: add it, as in recipes/digits.yaml"
    if problem["type"] == "value_error":  # of a whole section: its message says what was received
        return f"{key}: {problem['msg']}".removeprefix(": ").replace("Value error, ", "")
    return f"{key}: {problem['msg']}, received {problem['input']!r}"


def _keys_in_file(problem: ErrorDetails, content: Any) -> list[int | str]:
    """Pydantic's location of a problem without the names of chosen variants, which are no keys of the file."""
    keys: list[int | str] = []
    for key in problem["loc"]:
        is_variant = isinstance(content, dict) and key not in content
        if is_variant and not (problem["type"] == "missing" and key == problem["loc"][-1]):
            continue
        keys.append(key)
        content = content.get(key) if isinstance(content, dict) else None
    return keys


def _known_keys(place: list[int | str]) -> list[str]:
    """The keys of the section at `place`; of all its variants where it has several."""
    sections: list[Any] = [Params]
    for key in place:
        sections = [
            section
            for parent in sections
            if key in parent.model_fields
            for section in _sections_in(parent.model_fields[str(key)].annotation)
        ]
    return sorted({name for section in sections for name in section.model_fields})


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, Section) else []
    return [section for part in getattr(annotation, "__args__", ()) for section in _sections_in(part)]
