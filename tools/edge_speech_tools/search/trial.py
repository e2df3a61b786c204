"""One trial: its model made, its artifact built, its words counted and its chunks timed."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edge_speech_tools.cache import Cache
from edge_speech_tools.evaluation import measure_quality
from edge_speech_tools.job import Job
from edge_speech_tools.latency import measure_latency
from edge_speech_tools.recordings import Recording
from edge_speech_tools.search.model import alone, job_of
from edge_speech_tools.search.space import Settings, Space
from edge_speech_tools.sensitivity import SILENT
from edge_speech_tools.stages import build


@dataclass(frozen=True)
class Figures:
    """`wer` in percent on `utterances` recordings; `rtf` is computing per second of audio, which compares
    chunks of any length; `latency_ms` the median of a chunk, `chunk_ms` its audio; `bytes` the artifact's."""

    wer: float
    utterances: int
    rtf: float
    latency_ms: float
    chunk_ms: float
    bytes: int


Measure = Callable[[Settings], Figures]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; a process that ends, however, leaves it free."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def measure_trial(
    jobs: Mapping[str, Job], given: Job, space: Space, settings: Settings, timing: Path
) -> Figures:
    """Make and judge one point; `timing` is locked while it is timed. Raises InputError or CheckFailed."""
    base = jobs[settings.model]
    # What trials make is kept while the search lasts; only what the last step uses counts as used.
    own = replace(base, cache=Cache(base.cache.folder), progress=SILENT)
    job = alone(job_of(own, given, space, settings), space, settings)
    with tempfile.TemporaryDirectory() as work:
        made = build(job, Path(work))
        result = made.results[-1]
        recordings = spread(job, job.config.search.limit if job.config.search else 0)
        heard = measure_quality(job.line, {result.key: made.engine(result.key)}, recordings, SILENT)
        with locked(timing):
            timed = measure_latency(job.line, job.spec, [result], job.compared.recordings, SILENT)
        bench = timed[result.key]
        return Figures(
            wer=heard[result.key].score.wer,
            utterances=len(recordings),
            rtf=bench["rtf"],
            latency_ms=bench["chunk_latency_ms"]["p50"],
            chunk_ms=bench["chunk_ms"],
            bytes=result.path.stat().st_size,
        )


def spread(job: Job, limit: int) -> Sequence[Recording]:
    """At most `limit` recordings of --eval (0: all), evenly over it, as manifests are sorted by speaker."""
    assert job.evaluation is not None
    every = job.evaluation.recordings
    if not 0 < limit < len(every):
        return every
    return [every[i * len(every) // limit] for i in range(limit)]
