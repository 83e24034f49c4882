"""Recognizes errors that mean that memory ran out, whichever library raised them, and says in one line what helps.

TensorFlow, JAX and PyTorch are not imported: their errors are recognized by their names and texts.
"""

import errno
import re
import sys
from collections.abc import Iterator

from temper.base.paths import program

_WORDS = re.compile(
    r"\bMemoryError|ResourceExhaustedError|OutOfMemoryError|RESOURCE_EXHAUSTED|Resource exhausted"
    "|[Oo]ut of memory|std::bad_alloc|Insufficient memory"  # CUDA, C++ and OpenCV
    "|can't allocate memory|[Cc]annot allocate memory|failed to map segment from shared object"  # PyTorch, the loader
    "|can't start new thread"  # a thread's stack is memory too
)
_ASKED = re.compile(
    r"\b(?:OOM when |Out of memory (?:while )?|Unable to |Tried to |trying to |Failed to )+alloc[^\n]*", re.IGNORECASE
)
_WHERE = re.compile(r"\.? (?:on /job:|\[Op:|in function ).*|[. ]+$")  # the text after the amount, which is cut off
FREE, LOWER = "free some memory", "batch_size or image_size, choose a smaller backbone"


def in_one_line(error: BaseException) -> str | None:
    """For an error that means that memory ran out: the amount requested and what helps. `None` for any other error."""
    for one in _chain(error):
        kinds = " ".join(kind.__name__ for kind in type(one).__mro__)
        if isinstance(one, Exception) and (getattr(one, "errno", None) == errno.ENOMEM or says_so(f"{kinds} {one}")):
            helps = f"lower {LOWER}, or {FREE}" if "keras" in sys.modules else FREE
            return f"{program()}: {_asked_for(str(one))}; nothing half-written was kept: {helps}, and run again"
    return None


def says_so(text: str) -> bool:
    """Whether a library's message means that memory ran out."""
    return _WORDS.search(text) is not None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that were being handled when it was raised: without memory, the cleanup fails too."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _asked_for(text: str) -> str:
    """The part of an error's text that says how much memory was requested, or the beginning of the text."""
    words = " ".join(text.split())
    if words.startswith("expected "):  # a message of Temper
        return words
    found = _ASKED.search(text)
    words = _WHERE.sub("", " ".join(found[0].split()) if found else words[:200])
    return f"expected more memory, received too little{words and ': '}{words}"
