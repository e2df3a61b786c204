"""A progress bar on stderr where tqdm is installed and a person is looking; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def track(items: Sequence[T], label: str, quiet: bool) -> Iterator[T]:
    """The items one by one, with a bar."""
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(items)
    return iter(tqdm(items, desc=label, disable=quiet or not sys.stderr.isatty(), leave=False))
