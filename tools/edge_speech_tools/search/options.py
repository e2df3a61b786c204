"""What `edge-speech optimize --search` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_speech.errors import InputError


@dataclass(frozen=True)
class SearchOptions:
    """`trials` in all, by `jobs` processes, each on `limit` recordings of --eval (0: all).

    `models` are further checkpoints to choose from; `chunk_ms` the chunk lengths to try, where () stands for
    half, once and twice each model's own. Raises InputError.
    """

    trials: int
    jobs: int = 1
    limit: int = 100
    models: tuple[Path, ...] = ()
    chunk_ms: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, value, least in (("", self.trials, 1), ("-jobs", self.jobs, 1), ("-limit", self.limit, 0)):
            if value < least:
                raise InputError(f"--search{name} is {value}; allowed are {least} and more")
        if odd := [ms for ms in self.chunk_ms if not 0 < ms < float("inf")]:
            raise InputError(f"--search-chunk-ms has {odd[0]:g}; give milliseconds such as 160,320")
