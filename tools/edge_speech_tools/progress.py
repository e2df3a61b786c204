"""What a person sees while they wait: bars and one line per finished step, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """Silent when `quiet`; the bars also when nobody watches (stderr is no terminal)."""

    quiet: bool = False

    def bar(self, items: Sequence[T], label: str) -> Iterable[T]:
        """The items, with a bar that goes away when they are through."""
        bar: Iterable[T] = tqdm(items, desc=label, disable=self.quiet or None, leave=False, file=sys.stderr)
        return bar

    def say(self, line: str) -> None:
        """One line."""
        if not self.quiet:
            tqdm.write(line, file=sys.stderr)
