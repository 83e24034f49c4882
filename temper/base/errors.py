"""The one error that a stage shows its user as a single line."""


class TemperError(Exception):
    """What was expected, what was received, where, and what to do next, in one line.

    Anything else that a stage raises is a defect of Temper and keeps its traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
