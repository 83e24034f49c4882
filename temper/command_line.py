"""Exit codes and one-line errors for commands whose output other programs read."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from temper.base.errors import TemperError


def run(main: Callable[[], int]) -> NoReturn:
    """Runs `main` and ends the process with the exit code that it returns.

    Errors that the user can fix print one line on stderr and end with exit code 1; Ctrl-C ends with 130. stdout is
    UTF-8 whatever the terminal's language, so that equal answers give equal bytes, even for file names that are not
    valid text.
    """
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        sys.exit(main())
    except BrokenPipeError:  # the program that reads the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (TemperError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
