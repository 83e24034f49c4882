"""The options of the server and of the function for AWS Lambda: which models to serve, within which limits."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from apps.serve.limits import Limits
from temper.base.errors import TemperError
from temper.inference import detector_arguments
from temper.inference.cropping import DetectorChoice

TOKEN = "TEMPER_TOKEN"  # an environment variable, because lists of processes show command lines
_LEAST_TOKEN = 8  # characters
_MEANINGS = {
    "megabytes": "of a request, and of a photo that is fetched",
    "megapixels": "of a photo",
    "photos": "of a request",
    "seconds": "for a request to arrive, and again to be answered",
    "requests": "that are worked on at once; those beyond are asked to come back",
    "connections": "that are open at once",
}


@dataclass(frozen=True)
class Options:
    """The options that the server was started with.

    Attributes:
        models: the files of the models.
        token: the token that clients must send, as `Authorization: Bearer TOKEN`; None: none is needed.
        addresses: whether photos are fetched by URL.
        private: whether the hosts of these URLs may be private.
        detector: the detector of the main object, for models that were trained on crops; None: they get whole photos.
    """

    models: Sequence[Path]
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    addresses: bool = False
    private: bool = False
    detector: DetectorChoice | None = None


def add_to(parser: argparse.ArgumentParser, without: Sequence[str] = ()) -> None:
    """Adds the options that `chosen` reads.

    Args:
        without: the names of limits that do not apply here.
    """
    parser.add_argument("--models", nargs="*", type=Path, default=[], metavar="FILE", help="exported models")
    parser.add_argument("--addresses", action="store_true", help="fetch photos by address, from public hosts")
    parser.add_argument("--private", action="store_true", help="with --addresses: also from hosts of this network")
    detector_arguments.add_to(parser)
    for one in fields(Limits):
        if one.name not in without:
            kind = int if isinstance(one.default, int) else float
            meaning = f"{_MEANINGS[one.name]} (default: %(default)g)"
            parser.add_argument(f"--{one.name}", type=kind, default=one.default, metavar="N", help=meaning)


def chosen(given: argparse.Namespace) -> Options:
    """The options from the command line and the environment.

    Raises:
        TemperError: a limit is 0 or less, or the token is too short.
    """
    limits = Limits(**{one.name: getattr(given, one.name) for one in fields(Limits) if hasattr(given, one.name)})
    for one in fields(Limits):
        if not getattr(limits, one.name) > 0:
            raise TemperError(f"--{one.name}: expected a number above 0, received {getattr(limits, one.name)}")
    token = os.environ.get(TOKEN)
    if token is not None and len(token) < _LEAST_TOKEN:
        raise TemperError(f"{TOKEN}: expected at least {_LEAST_TOKEN} characters, received {len(token)}; or unset it")
    detector = None if given.whole else detector_arguments.choice(given)
    return Options(given.models, limits, token, given.addresses, given.private, detector)
