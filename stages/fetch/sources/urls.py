"""`source: urls`: photos by their addresses, from a CSV, TSV or Parquet of url,label[,split], or a GBIF archive."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from stages.fetch.reading.url_tables import read_url_table
from stages.fetch.source import Photo, Source
from temper.base.errors import TemperError
from temper.base.paths import existing, scratch
from temper.network import url_cache
from temper.network.redaction import redacted, secrets_of
from temper.network.url_downloads import Manners, download_missing
from temper.settings.base import Count, Fraction, Text
from temper.settings.fetch import SourceSettings


class Settings(SourceSettings):
    """`source: urls`: a CSV, TSV or Parquet of url,label[,split], or a GBIF Darwin Core archive, at `path`."""

    source: Literal["urls"]
    label: Text = Field(
        "label", description="the column of the class names; in a Darwin Core archive any taxon column, such as species"
    )
    per_host: Count = Field(4, description="the largest number of downloads from one host at a time")
    attempts: Count = Field(5, description="how often each download is tried, with growing pauses in between")
    failures: Fraction = Field(0.05, description="the share of the downloads that may fail; more stop the stage")
    max_table_mb: Count = Field(
        4000,
        description="the most memory for the columns that are read, in MB; the default is enough for about "
        "25 million rows",
    )
    max_photo_mb: Annotated[int, Field(ge=1, le=10_000)] = Field(
        200, description="the largest size of a photo, in MB; a longer download is stopped, and the photo rejected"
    )
    allow_private_addresses: bool = Field(
        False,
        description="whether photos may come from hosts of your own network or machine, also by a redirect; only for "
        "a table that you trust",
    )


_ROWS = 10_000  # how many rows are converted to Python objects at a time
_NAMED = 5  # how many kinds of problems the error message lists


def open_source(settings: Settings) -> Source:
    """The photos of the table at `path`, in its order; all are downloaded when the first one is read.

    Downloads are kept in `.temper/downloads/urls/`, outside DVC's outputs. So a killed run continues where it stopped,
    and after an edit of the table only new URLs are downloaded. A URL that fails for good becomes a photo with a
    problem.

    Raises:
        TemperError: the table cannot be read; or, while photos are read, more downloads failed than `failures` allows.
    """
    local = existing(settings.path)
    table = read_url_table(local, settings.label, settings.max_table_mb * 10**6)
    folder = scratch("downloads/urls")

    def photos() -> Iterator[Photo]:
        urls = pc.unique(table.rows["url"]).to_pylist()
        manners = Manners(
            settings.per_host,
            settings.attempts,
            most_bytes=settings.max_photo_mb * 10**6,
            private=settings.allow_private_addresses,
        )
        failures = download_missing(urls, folder, manners)
        refuse_too_many(failures, len(urls), settings.failures)
        yield from _read_photos(table.rows, folder, failures, manners)

    return Source({"source": "urls", "from": local.name, **table.facts}, len(table.rows), photos())


def _read_photos(rows: pa.Table, folder: Path, failures: Mapping[str, str], manners: Manners) -> Iterator[Photo]:
    for batch in rows.to_batches(_ROWS):
        for url, label, split, licence in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            problem = failures.get(url)
            data = None if problem else url_cache.read(folder, url)
            if data is None and problem is None:  # damaged since it was downloaded
                problem = download_missing([url], folder, manners).get(url)
                data = url_cache.read(folder, url)
            path = redacted(url, secrets_of(url))  # raw tables are shared, so they must not contain credentials
            yield Photo(path, label, split, data or b"", licence=licence, problem=problem)


def refuse_too_many(failures: Mapping[str, str], total: int, share: float) -> None:
    """Raises a TemperError if more than `share` of the `total` downloads failed."""
    if len(failures) <= share * total:
        return
    counts = Counter(failures.values()).most_common()
    named = ", ".join(f"{problem}: {count}" for problem, count in counts[:_NAMED])
    more = ", ..." if len(counts) > _NAMED else ""
    raise TemperError(
        f"failures: expected at most {share:.4g} of the downloads to fail, received {len(failures)} failures of "
        f"{total} ({named}{more}); what was fetched is kept and a further run asks only for the rest; "
        f"to go on without them, raise failures"
    )
