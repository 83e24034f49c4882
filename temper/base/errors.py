"""TemperError: the error that a stage shows its user as a single line."""


class TemperError(Exception):
    """An error that the user can fix. Its one line says what was expected, what was received, where, and what to do.

    With few exceptions (memory, disk, Ctrl-C), any other error of a stage is a bug in Temper and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


def printable(text: str) -> str:
    """Escapes characters that a terminal would obey or cannot show: names come from whoever published the photos."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
