"""How the tests that draw random inputs run: the same inputs every time, or as many others as FUZZ_EXAMPLES says."""

import os

from hypothesis import Phase, settings

_MORE = "FUZZ_EXAMPLES"


def same_every_time(examples: int) -> settings:
    """Settings for `examples` inputs of each test, without a limit of time for one."""
    return settings(
        max_examples=int(os.environ.get(_MORE, examples)),
        derandomize=_MORE not in os.environ,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],  # `explain` traces every line, which takes its time
    )
