"""Settings for tests with random inputs: the same inputs every time, or as many other ones as FUZZ_EXAMPLES says."""

import os

from hypothesis import Phase, settings

_MORE = "FUZZ_EXAMPLES"


def same_every_time(examples: int) -> settings:
    """Settings for `examples` inputs per test, without a time limit for each."""
    return settings(
        max_examples=int(os.environ.get(_MORE, examples)),
        derandomize=_MORE not in os.environ,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],  # `explain` traces every line, which takes its time
    )
