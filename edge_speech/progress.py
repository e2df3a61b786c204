"""A progress bar on stderr where tqdm is installed and a person is looking; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def track(items: Sequence[T], label: str, quiet: bool) -> Iterator[T]:
    """The items one by one, with a bar."""
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(items)
    return iter(tqdm(items, desc=label, disable=quiet or not sys.stderr.isatty(), leave=False))


@contextmanager
def byte_bar(total: int, label: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar over `total` bytes; what it gives is told the position reached."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda position: None
        return
    quiet = quiet or not sys.stderr.isatty()
    with tqdm(total=total, desc=label, disable=quiet, leave=False, unit="B", unit_scale=True) as bar:
        yield lambda position: bar.update(position - bar.n)


@contextmanager
def phase_bar(label: str, quiet: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A bar of nested work; what it gives is told the outermost step, how many there are, what is done."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda step, steps, doing: None
        return
    with tqdm(total=1, desc=label, disable=quiet or not sys.stderr.isatty(), leave=False) as bar:

        def reached(step: int, steps: int, doing: str) -> None:
            bar.total = max(1, steps)
            bar.set_postfix_str(doing[:40], refresh=False)
            bar.update(step - bar.n)

        yield reached
