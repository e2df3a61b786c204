"""The processes that torchrun started to share one work, by the variables it sets for each of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TypeVar

from edge_speech.errors import InputError

T = TypeVar("T")
_NOTHING = object()


@dataclass(frozen=True)
class Group:
    """This process is number `rank` of `size`, and number `local_rank` of its machine.

    The default is a process by itself.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def speaks(self) -> bool:
        """One process writes files and says what was found."""
        return self.rank == 0

    def share(self, items: Iterable[T]) -> Iterator[T]:
        """Every `size`-th of the items, from number `rank` on."""
        return islice(items, self.rank, None, self.size)


ALONE = Group()


def joined(shares: Sequence[Sequence[T]]) -> list[T]:
    """All items in their order, from the shares of all processes."""
    rounds = zip_longest(*shares, fillvalue=_NOTHING)
    return [item for items in rounds for item in items if item is not _NOTHING]  # type: ignore[misc]


def group_of_environment() -> Group:
    """The group that torchrun made this process a part of. Raises InputError."""
    try:
        rank, size, local_rank = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
        )
    except ValueError as error:
        raise InputError(
            f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers ({error}); start with torchrun"
        ) from error
    if not 0 <= rank < size or local_rank < 0:
        raise InputError(f"RANK is {rank} of WORLD_SIZE {size}; start with torchrun, which sets both")
    return Group(rank, size, local_rank)
