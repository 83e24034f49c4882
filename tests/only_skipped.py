"""A plugin of pytest: `--only-skipped` runs the tests that the run before skipped, for example for want of a package.

.ci/run runs all tests as on a fresh machine, installs the packages that are optional, and runs the rest with this. So a
test that needs such a package must skip without it; one that only does less without it is not run again.
"""

import pytest

RECORD = "temper/skipped"  # in pytest's cache: ids of tests, and of files that were skipped as a whole


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only-skipped", action="store_true", help="run only the tests that the run before skipped")


def pytest_configure(config: pytest.Config) -> None:
    has_cache = config.pluginmanager.has_plugin("cacheprovider")
    if has_cache and not config.getoption("--only-skipped") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder())


class Recorder:
    """Writes down what is skipped; with pytest-xdist in the process that starts the others, which gets all reports."""

    def __init__(self) -> None:
        self._skipped: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        assert session.config.cache is not None
        session.config.cache.set(RECORD, sorted(self._skipped))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--only-skipped"):
        recorded = config.cache.get(RECORD, None) if config.cache else None
        if recorded is None:
            raise pytest.UsageError("--only-skipped: expected a run before this one, found no record of any")
        skipped = set(recorded)
        chosen = [item for item in items if {item.nodeid, item.nodeid.partition("::")[0]} & skipped]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen
