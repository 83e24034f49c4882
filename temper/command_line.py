"""How a command ends that prints answers for programs: exit codes, errors in one line, a reader who goes away."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from temper.base.errors import TemperError


def run(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the exit code of `main`.

    What the user can mend ends in one line on stderr and exit code 1, Ctrl-C in 130. stdout is UTF-8 whatever the
    terminal's language: equal answers give equal bytes, also for names that are no text.
    """
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        sys.exit(main())
    except BrokenPipeError:  # who read the answers has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (TemperError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
