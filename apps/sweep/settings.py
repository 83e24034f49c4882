"""The schema of SWEEP.yaml: the params to search, the sampler and pruner, the objective, and when to stop."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from temper.base.loading import unknown_key
from temper.settings.base import Count, FromText, OrNone, Section, Seed, Text, Whole

Number = Annotated[float, Field(allow_inf_nan=False), FromText]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), FromText]
Ends = Annotated[list[Number], Field(min_length=2, max_length=2)]
Scalar = str | int | float | bool | None

KINDS_OF_SERVERS = ("postgresql+psycopg", "mysql+pymysql")
KINDS = ("values", "log", "range", "integers")
PHASES = ("warm_up", "fine_tune")
CURVES = ("loss", "accuracy")
# Metrics in metrics/evaluate/metrics.json. There each has the prefix `validation_`, or none for test; those of the
# warm-up's model have `warm_up_` before that.
FIGURES = (
    *("accuracy", "top_3_accuracy", "top_5_accuracy", "macro_precision", "macro_recall", "macro_f1", "macro_auc"),
    *("weighted_precision", "weighted_f1", "loss", "calibration_error", "scaled_loss", "scaled_calibration_error"),
)


@dataclass(frozen=True)
class Objective:
    """The metric by which trials are compared, always of the validation images.

    Attributes:
        name: as in SWEEP.yaml, such as "fine_tune/validation/loss".
        stage: the last stage that a trial runs.
        figure: the column in the table of the fine-tune's curve, or the key in the stage's metrics.json.
        is_curve: whether the value is that of the best epoch on the fine-tune's curve; only then can trials be pruned.
            The metrics.json of `fine_tune` would not do: a fine-tune that gains too little over the warm-up keeps the
            warm-up's weights, or goes half of the way (law 13), so its metrics say little about such a trial.
    """

    name: str
    stage: str
    figure: str
    is_curve: bool

    @property
    def maximize(self) -> bool:
        """Whether higher values are better."""
        return not self.figure.endswith(("loss", "calibration_error"))

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`."""
        return one > other if self.maximize else one < other


def parse_objective(name: str) -> Objective:
    """The objective with a name.

    Raises:
        ValueError: no objective has this name, or it is a metric of the test split.
    """
    phase, _, rest = name.partition("/")
    if phase in PHASES and rest in {f"validation/{figure}" for figure in CURVES}:
        figure = rest.removeprefix("validation/")
        if phase == "fine_tune":
            return Objective(name, phase, figure, is_curve=True)
        return Objective(name, phase, f"warm_up_best_val_{figure}", is_curve=False)
    figure = name.removeprefix("warm_up_").removeprefix("validation_")
    if figure in FIGURES:
        if "validation_" in name:
            return Objective(name, "evaluate", name, is_curve=False)
        proposed = f"{'warm_up_' if name.startswith('warm_up_') else ''}validation_{figure}"
        raise ValueError(
            f"objective: expected a figure of the validation images, received {name}, which is measured on the test "
            f"split, and nothing is chosen by that; did you mean {proposed}?"
        )
    raise ValueError(
        f"objective: expected PHASE/validation/loss or PHASE/validation/accuracy with one of the phases "
        f"{' and '.join(PHASES)}, or validation_FIGURE as in metrics/evaluate/metrics.json, received {name!r}"
    )


class Param(Section):
    """The values that one key of params.yaml may take: a list, or one kind of range."""

    values: list[Any] | None = Field(None, min_length=1, description="these; a mapping replaces the whole section")
    log: Ends | None = Field(None, description="numbers from, to, each order of magnitude equally often")
    range: Ends | None = Field(None, description="numbers from, to")
    integers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, description="whole numbers from, to, both included"
    )
    step: Positive | None = Field(None, description="of range or integers: only every so many")
    when: dict[str, list[Scalar]] = Field(
        {}, description="other params of the sweep and the values at which this one is searched; else it is taken away"
    )

    @model_validator(mode="before")
    @classmethod
    def _conditions_are_lists(cls, given: Any) -> Any:
        when = given.get("when") if isinstance(given, dict) else None
        if not isinstance(when, dict):
            return given
        return given | {"when": {key: value if isinstance(value, list) else [value] for key, value in when.items()}}

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> "Param":
        kinds = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"expected one of {', '.join(KINDS)}, received {' and '.join(kinds) or 'none of them'}")
        ends = self.log or self.range or self.integers
        if ends is not None and not ends[0] < ends[1]:
            raise ValueError(f"{kinds[0]}: expected [low, high] with low < high, received {ends}")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError(f"log: expected numbers above 0, received {self.log}")
        if self.step is not None and kinds[0] not in ("range", "integers"):
            raise ValueError(f"step belongs to range and integers, not to {kinds[0]}: remove it")
        if self.step is not None and self.integers is not None and self.step != int(self.step):
            raise ValueError(f"step: expected a whole number for integers, received {self.step:g}")
        values = self.values or []
        twice = [value for number, value in enumerate(values) if value in values[:number]]
        if twice:
            raise ValueError(f"values: expected different ones, received {twice[0]!r} twice")
        return self


def _param(given: Any) -> Any:
    """Accepts a plain list as {values: list}, and refuses unknown keys."""
    if isinstance(given, list):
        return {"values": given}
    known = list(Param.model_fields)
    if not isinstance(given, dict):
        raise ValueError(f"expected a list of values, or one of {', '.join(KINDS)}, received {given!r}")
    strange = [str(key) for key in given if key not in known]
    if strange:
        raise ValueError(unknown_key(strange[0], known))
    return given


def _named(given: Any) -> Any:
    """Accepts `median` as {name: median}. YAML 1.1 reads an unquoted `off` as false."""
    if given is False:
        given = "off"
    return {"name": given} if isinstance(given, str) else given


class Median(Section):
    """Ends a trial whose best epoch so far is worse than the median of the finished trials at that epoch."""

    name: Literal["median"]
    after_trials: Count = Field(4, description="so many trials are finished before any is pruned")
    after_epochs: Whole = Field(2, description="so many epochs of each trial are never pruned")


class Reach(Section):
    """Ends a trial whose curve, extrapolated in a straight line, stays worse than the best finished trial."""

    name: Literal["reach"]
    after_trials: Count = Field(1, description="so many trials are finished before any is pruned")
    after_epochs: Whole = Field(2, description="so many epochs of each trial are never pruned")


class Off(Section):
    """No trial is pruned."""

    name: Literal["off"]


Pruner = Annotated[Annotated[Reach | Median | Off, Field(discriminator="name")], BeforeValidator(_named)]


def _storage(given: str) -> str:
    """Accepts an address without a password, or $NAME of an environment variable that holds an address."""
    kind, _, rest = given.partition("://")
    if re.fullmatch(r"\$[A-Za-z_]\w*", given):
        return given
    if kind not in KINDS_OF_SERVERS or not rest:
        # The value may hold a password, so the message does not quote it.
        raise ValueError(
            f"expected {' or '.join(f'{kind}://...' for kind in KINDS_OF_SERVERS)}, or $NAME of an environment "
            "variable that holds such an address"
        )
    if urlsplit(given).password is not None or re.search(r"[?&;]passw(or)?d=", given):
        raise ValueError(
            "expected no password in a file that may be committed: put the whole address into an environment variable "
            "and its name here, such as $SWEEP_STORAGE"
        )
    return given


class Stop(Section):
    """When to start no more trials, although fewer than `trials` have begun."""

    patience: Annotated[Count | None, OrNone] = Field(None, description="so many trials in a row were no better")
    hours: Positive | None = Field(None, description="so long since this command was started")


class Sweep(Section):
    """The content of a SWEEP.yaml."""

    params: dict[str, Annotated[Param, BeforeValidator(_param)]] = Field(min_length=1)
    trials: Annotated[Count | None, OrNone] = Field(
        None, description="the maximum number of trials; null with a grid: all its points"
    )
    parallel: Count = Field(1, description="trials at once")
    objective: Text = Field("fine_tune/validation/loss", description="the validation metric to optimize")
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Pruner | None = Field(None, description="null: reach on the fine-tune's curve, else off")
    stop: Stop = Stop()
    seed: Seed = Field(0, description="of the sampler")
    storage: Annotated[str, AfterValidator(_storage)] | None = Field(
        None, description="a database server's study, for drivers in several clones; null: SQLite, for one driver"
    )
    seeds: Whole = Field(3, description="with how many other seeds the best is run again at the end; 0: none")

    @property
    def aim(self) -> Objective:
        """The parsed objective."""
        return parse_objective(self.objective)

    @property
    def pruning(self) -> Reach | Median | None:
        """The settings of the pruner; `None`: no trial is pruned."""
        if self.pruner is None:
            return Reach(name="reach") if self.aim.is_curve else None
        return None if isinstance(self.pruner, Off) else self.pruner

    @model_validator(mode="after")
    def _fits_together(self) -> "Sweep":
        aim = parse_objective(self.objective)
        if isinstance(self.pruner, Reach | Median) and not aim.is_curve:
            raise ValueError(
                f"pruner: expected off with the objective {aim.name}, which has no curve to prune by; or choose "
                "fine_tune/validation/loss or fine_tune/validation/accuracy"
            )
        if self.trials is None and self.sampler != "grid":
            raise ValueError(f"trials: expected a number of trials for the sampler {self.sampler}, received none")
        for key, param in self.params.items():
            if not re.fullmatch(r"\w+(\.\w+)*", key):
                raise ValueError(f"params: expected keys as -S takes them, such as fine_tune.epochs, received {key!r}")
            if self.sampler == "grid" and param.values is None and (param.log or (param.range and not param.step)):
                raise ValueError(f"params.{key}: expected a list, integers, or a range with a step for a grid")
        self._refuse_wrong_conditions()
        self._refuse_sections_within_each_other()
        return self

    def _refuse_wrong_conditions(self) -> None:
        above: list[str] = []
        for key, param in self.params.items():
            for other, wanted in param.when.items():
                if other not in above:
                    raise ValueError(
                        f"params.{key}.when: expected params of this sweep that stand above it "
                        f"({', '.join(above) or 'there are none'}), received {other!r}"
                    )
                known = self.params[other].values
                strange = [value for value in wanted if known is None or value not in known]
                if strange or not wanted:
                    raise ValueError(
                        f"params.{key}.when.{other}: expected values from the list of {other}, received {strange}"
                    )
            above.append(key)

    def _refuse_sections_within_each_other(self) -> None:
        for key in self.params:
            inside = [other for other in self.params if other.startswith(f"{key}.")]
            if inside:
                raise ValueError(f"params: expected {key} or keys within it, received {key} and {inside[0]}")
