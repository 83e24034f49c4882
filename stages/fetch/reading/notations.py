"""Types of settings that several sources share: Kaggle's slugs, and path patterns."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+(/versions/[1-9][0-9]*)?)?$")]


def _layout(pattern: str) -> str:
    fields = re.findall(r"\{[^}]*\}", pattern)
    if set(fields) - {"{split}", "{label}", "{name}"} or len(set(fields)) < len(fields) or "{name}" not in fields:
        raise ValueError(
            f"expected a path with {{name}}, and {{split}}, {{label}} and * where they fit, received {pattern!r}"
        )
    return pattern


Layout = Annotated[str, AfterValidator(_layout)]
