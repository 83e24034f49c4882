"""Finds the layer from which the backbone is unfrozen, at once or block by block. Needs no Keras."""

import difflib
import math
import re
from collections.abc import Sequence

from temper.base.errors import TemperError

Layers = Sequence[tuple[str, bool]]  # the name of each layer, in order, and whether it has weights


def _few(names: Sequence[str], most: int = 20) -> str:
    """A list of names for a message; of more than `most`, only the first and the last ones."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most // 2])}, ..., {', '.join(names[-most // 2 :])}"


def _block(name: str) -> str | None:
    """The block of a layer, by its name: "block_13" of "block_13_expand"; `None` where the name has no number."""
    match = re.match(r".*?\d+[a-z]?(?=_|$)", name)
    return match[0] if match else None


def blocks_above(layers: Layers) -> list[int]:
    """For each layer, the number of its block, counted from the head: 1 for the last block.

    A layer without weights, or without a number in its name, belongs to the block before it. MobileNet's depthwise and
    pointwise halves ("conv_dw_3", "conv_pw_3") are one block, and so are a convolution and its BatchNorm ("bn_Conv1").
    """
    numbers: list[int] = []
    block = ""  # the layers before the first one with weights belong to its block
    for name, has_weights in layers:
        own = re.sub(r"^bn_|_(dw|pw)(?=_)", "", _block(name) or "") or block or name
        first = not numbers
        started = has_weights and own != block
        numbers.append(1 if first else numbers[-1] + (started and bool(block)))
        block = own if started else block
    return [numbers[-1] + 1 - number for number in numbers]


def first_open(layers: Layers, start: str | float, key: str = "fine_tune.unfreeze_from") -> int:
    """The index of the first unfrozen layer; `len(layers)` if none is.

    Args:
        start: "all", "none", the name of a layer or of a block ("conv4_block1" means its first layer,
            "conv4_block1_1_conv"), or the share of the layers with weights that is unfrozen, counted from the end.
        key: the setting that `start` comes from, for the message.

    Raises:
        TemperError: the backbone has no such layer; the message lists those it has.
    """
    if start in ("all", "none"):
        return 0 if start == "all" else len(layers)
    if isinstance(start, float):
        with_weights = [number for number, (_, has_weights) in enumerate(layers) if has_weights]
        opened = math.ceil(start * len(with_weights))
        return with_weights[-opened] if opened else len(layers)
    for number, (name, _) in enumerate(layers):
        if name == start or name.startswith(f"{start}_"):
            return number
    trained = [name for name, has_weights in layers if has_weights]
    blocks = list(dict.fromkeys(block for block in map(_block, trained) if block))
    close = difflib.get_close_matches(start, [*blocks, *trained], 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise TemperError(
        f"{key}: expected all, none, a share of the layers such as 0.3, or a layer or block of the "
        f"backbone, received {start!r}{hint}; its blocks: {', '.join(blocks) or 'none'}; its layers: {_few(trained)}"
    )


def openings(layers: Layers, start: str | float, floor: str | float, blocks: int) -> list[int]:
    """The index of the first unfrozen layer at the start and after each opening, in falling order.

    If the start lies within a block, the rest of that block counts as the first block to open.

    Args:
        start, floor: as in `first_open`; the last opening ends exactly at the floor, even within a block.
        blocks: how many blocks each opening unfreezes, at least 1.

    Raises:
        TemperError: the backbone has no such layer, or the floor is not below the start.
    """
    key = "fine_tune.unfreeze_further.down_to"
    first, last = first_open(layers, start), first_open(layers, floor, key)
    if last >= first:
        raise TemperError(
            f"{key}: expected a layer or block below unfreeze_from, {start!r}, or a larger share, received {floor!r}: "
            "nothing would be left to open"
        )
    above = blocks_above(layers)
    bottoms = [number for number in range(1, len(layers)) if above[number] != above[number - 1]]
    between = [number for number in reversed(bottoms) if last < number < first]
    return [first, *between[blocks - 1 :: blocks], last]


def place(layers: Layers, first: int) -> str:
    """The value of `unfreeze_from` for an index: the block that begins there, or else the layer; "none" at the end."""
    names = [name for name, has_weights in layers[first:] if has_weights]
    if not names:
        return "none"
    block = _block(names[0])
    is_whole = block is not None and first_open(layers, block) == first_open(layers, names[0])
    return block if block is not None and is_whole else names[0]
