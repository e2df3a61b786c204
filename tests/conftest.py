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
    config.stash[_SKIPPED] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):  # type: ignore[no-untyped-def]
    report = (yield).get_result()
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("optional") is None:
        item.config.stash[_SKIPPED].append(item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--fail-on-skip") and session.config.stash[_SKIPPED]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:  # type: ignore[no-untyped-def]
    if terminalreporter.config.getoption("--fail-on-skip"):
        for nodeid in terminalreporter.config.stash[_SKIPPED]:
            terminalreporter.write_line(f"required test was skipped: {nodeid}", red=True)


_SKIPPED: pytest.StashKey[list[str]] = pytest.StashKey()


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
