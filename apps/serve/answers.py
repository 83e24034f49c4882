"""The server's answers: their JSON models, and the steps from a photo to an answer (decode, predict, describe)."""

import asyncio
import base64
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from pydantic import BaseModel, Field

from apps.serve.inputs import Sent
from apps.serve.limits import Limits, Refusal
from apps.serve.models import Model
from temper.photos import Pixels
from temper.preparation import Preparation


class Guess(BaseModel):
    """A class, and how probable it is."""

    name: str = Field(examples=["rose"])
    probability: float = Field(ge=0, le=1, examples=[0.93])


class Look(BaseModel):
    """Where a model looked."""

    map: list[list[float]] = Field(
        description="By how much the log-odds of the most probable class fall where this part of the picture is hidden,"
        " row by row. Above 0: the part speaks for the class; below: against it."
    )
    picture: str = Field(description="What the model saw, as a `data:` URL of a PNG.")


class Answer(BaseModel):
    """A model's prediction for a photo."""

    model: str = Field(examples=["litert"])
    version: str = Field(description="The first digits of the SHA-256 of the model's file.", examples=["9f86d081884c"])
    classes: list[Guess] = Field(description="The most probable first.")
    look: Look | None = None


class Photo(BaseModel):
    """The result for a photo: answers, or an error with its status."""

    name: str = Field(examples=["rose.jpg"])
    answers: list[Answer] = []
    error: str | None = Field(None, examples=["expected a photo, received no image format that is read here"])
    status: int = Field(200, examples=[200])


class Answered(BaseModel):
    """The photos of a request, in their order."""

    photos: list[Photo]


class Problem(BaseModel):
    """Why a request got no answer, in one sentence."""

    error: str = Field(examples=["expected at least one photo, received none"])


class Description(BaseModel):
    """A model that is served."""

    name: str = Field(examples=["litert"])
    version: str = Field(examples=["9f86d081884c"])
    classes: list[str] = Field(examples=[["daisy", "rose", "tulip"]])
    backbone: str = Field(examples=["MobileNetV2"])
    height: int = Field(description="Of its input, in pixels.", examples=[224])
    width: int = Field(examples=[224])
    fit: str = Field(examples=["crop"])
    crops: bool = Field(description="Whether photos are cropped to their main object, as for its training.")
    cropped: bool = Field(
        description="Whether it was trained on photos cropped to their main object, and sees whole ones here.",
        examples=[False],
    )


@dataclass(frozen=True)
class Wish:
    """What a request asks for each photo.

    Attributes:
        models: the models to run.
        top: how many of the most probable classes to return.
        calibrated: whether probabilities are scaled by the model's temperature.
        look: whether to map where the model looks.
    """

    models: Sequence[Model]
    top: int
    calibrated: bool
    look: bool


class Decoding(Protocol):
    """Decodes photos; see apps/serve/decoding.py."""

    async def prepare(self, data: bytes, wanted: Sequence[Preparation]) -> list[Pixels]:
        """A photo prepared in each of the wanted ways, each uint8 (height, width, 3), RGB, 0-255.

        Raises:
            Refusal: it cannot be decoded.
        """


class Answering:
    """Turns photos into answers.

    Args:
        limits: the time that a request may take.
        decoders: decode the photos.
        threads: how many photos the models process at the same time.
    """

    def __init__(self, limits: Limits, decoders: Decoding, threads: int) -> None:
        self._limits, self._decoders = limits, decoders
        self._pool = ThreadPoolExecutor(threads, "model")

    async def all(self, photos: Sequence[Sent], wish: Wish, most: float = math.inf) -> list[Photo]:
        """The result for each photo, in order.

        Args:
            most: seconds that the answer may take, if this is less than the limit.

        Raises:
            Refusal: it takes too long, or `look` is asked for with more than one photo.
        """
        if wish.look and len(photos) > 1:
            raise Refusal(400, f"expected one photo with look=true, received {len(photos)}")
        seconds = min(self._limits.seconds, most)
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                return list(await asyncio.gather(*(self._one(photo, wish, deadline) for photo in photos)))
        except TimeoutError:
            raise Refusal(504, f"the server could not answer within {seconds:.3g} seconds") from None

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    async def _one(self, photo: Sent, wish: Wish, deadline: float) -> Photo:
        try:
            if isinstance(photo.data, Refusal):
                raise photo.data
            wanted = list(dict.fromkeys(model.preparation for model in wish.models))
            prepared = dict(zip(wanted, await self._decoders.prepare(photo.data, wanted), strict=True))
            loop = asyncio.get_running_loop()
            answers = [
                await loop.run_in_executor(self._pool, answer, model, prepared[model.preparation], wish, deadline)
                for model in wish.models
            ]
        except Refusal as refusal:
            return Photo(name=photo.name, error=refusal.sentence, status=refusal.status)
        return Photo(name=photo.name, answers=answers)


def answer(model: Model, pixels: Pixels, wish: Wish, deadline: float) -> Answer:
    """A model's answer for a prepared photo.

    Args:
        deadline: a time of `time.monotonic()`, up to which the model may run for `look`.
    """
    probabilities = model.predict(pixels, wish.calibrated)
    order = np.argsort(-probabilities, kind="stable")[: wish.top]
    classes = [Guess(name=model.classes[one], probability=round(float(probabilities[one]), 6)) for one in order]
    look = None
    if wish.look:
        found = model.look(pixels, deadline)
        png = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes()
        picture = "data:image/png;base64," + base64.b64encode(png).decode()
        look = Look(map=[[round(float(cell), 4) + 0.0 for cell in row] for row in found], picture=picture)
    return Answer(model=model.name, version=model.version, classes=classes, look=look)


def in_json(found: list[Photo]) -> str:
    """The body of the answer to a request, as JSON.

    Raises:
        Refusal: no photo could be read; the status and sentence are those of the first photo.
    """
    if not any(photo.status == 200 for photo in found):
        raise Refusal(found[0].status, str(found[0].error), 1 if found[0].status == 503 else None)
    return Answered(photos=found).model_dump_json(exclude_none=True)


def describe(model: Model) -> Description:
    """The description of a model for clients."""
    card = model.runtime.card
    return Description(
        name=model.name,
        version=model.version,
        classes=card.classes,
        backbone=card.backbone.name,
        height=card.preparation.height,
        width=card.preparation.width,
        fit=card.preparation.fit,
        crops=model.finder is not None,
        cropped=card.preparation.crop is not None and model.finder is None,
    )
