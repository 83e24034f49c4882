"""The one error that a stage shows its user as a single line."""


class TemperError(Exception):
    """What was expected, what was received, where, and what to do next, in one line.

    Anything else that a stage raises is a defect of Temper and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


def printable(text: str) -> str:
    """A text with what a terminal would obey or could not show as an escape: names come from whoever published them."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
