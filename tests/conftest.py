"""What all tests share: the shipped clips, and the rule that a required test is never skipped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_speech import backends

ROOT = Path(__file__).parent.parent
pytest.register_assert_rewrite("board")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fail-on-skip", action="store_true", help="fail when a test not marked `optional` was skipped"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "optional: may be skipped where its tool or oracle does not install")
    if config.getoption("--fail-on-skip"):
        config.pluginmanager.register(_RequiredTests())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first: processes that run files side by side end at about one time."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


_LONGEST = ("test_whole_line.py", "test_convert.py", "test_aarch64.py", "test_training_models.py")


class _RequiredTests:
    """Hears of every test, wherever it ran: those skipped without leave fail the run."""

    def __init__(self) -> None:
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and "optional" not in report.keywords:
            self.skipped.append(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.skipped:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter) -> None:  # type: ignore[no-untyped-def]
        for nodeid in self.skipped:
            terminalreporter.write_line(f"required test was skipped: {nodeid}", red=True)


@pytest.fixture(scope="session")
def digits() -> Path:
    """The folder of the shipped example: clips.jsonl, calibration.jsonl, model.pt."""
    return ROOT / "examples" / "digits"


_EVERY_ENGINE = backends.others


@pytest.fixture(scope="session", autouse=True)
def _the_makers_engines() -> Iterator[None]:
    """OpenVINO takes a second to load a file, and might be the fastest: no test hears of it by chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "others", lambda *_, **__: [])
        yield


@pytest.fixture
def every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Artifacts run in all engines of this install that load them, as outside of tests."""
    monkeypatch.setattr(backends, "others", _EVERY_ENGINE)
