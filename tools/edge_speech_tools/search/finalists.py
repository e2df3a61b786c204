"""What the search found, measured again: on all of --eval, and timed in turns with nothing beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.choice import LATENCY_MARGIN, Candidate
from edge_speech_tools.job import Job
from edge_speech_tools.latency import Loaded, interleaved, load
from edge_speech_tools.search.model import alone
from edge_speech_tools.search.space import Settings, Space, in_words
from edge_speech_tools.search.study import Trial
from edge_speech_tools.search.trial import Figures
from edge_speech_tools.stages import build, measure_all_parity, quality_of


@dataclass(frozen=True)
class Finalist:
    """A trial with its figures on all of --eval; `agreement` is a share of rows, of the best token."""

    trial: Trial
    job: Job
    figures: Figures
    agreement: float

    def candidate(self, wer_given: float, backend: str, models: int) -> Candidate:
        """What the rules of choice look at; time is per second of audio, as chunks differ in length."""
        return Candidate(
            key=f"trial {self.trial.number} ({in_words(self.trial.settings, models)})",
            backend=backend,
            precision=self.trial.settings.precision,
            bytes=self.figures.bytes,
            argmax_agreement=self.agreement,
            wer_added=self.figures.wer - wer_given,
            latency_ms=1e3 * self.figures.rtf,
        )


@dataclass(frozen=True)
class _Judged:
    """An artifact in its engine and what was measured of it alone."""

    loaded: Loaded
    sha256: str
    wer: float
    agreement: float


def pareto(points: Sequence[Sequence[float]]) -> list[bool]:
    """Of which points no other is as good in all objectives and better in one; all are minimised."""
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def promising(trials: Sequence[Trial], plain: Sequence[Settings]) -> list[Trial]:
    """Trials worth measuring again: those of `plain` settings, and all that no other one beats in words,
    bytes and, by more than the noise of a measurement, in time."""
    measured = [trial for trial in trials if trial.figures is not None]
    return [t for t in measured if t.settings in plain or not any(_beats(other, t) for other in measured)]


def _beats(other: Trial, trial: Trial) -> bool:
    a, b = other.figures, trial.figures
    assert a is not None
    assert b is not None
    return a.wer <= b.wer and a.bytes <= b.bytes and a.rtf * (1 + LATENCY_MARGIN) <= b.rtf


def measure_again(
    trials: Sequence[Trial], job: Job, space: Space, job_of: Callable[[Settings], Job], work: Path
) -> tuple[list[Finalist], Mapping[int, str]]:
    """Of each trial its finalist, or by its number the reason why there is none."""
    judged, failed = [], {}
    for trial in trials:
        job.progress.say(f"search   trial {trial.number} again, on all of --eval")
        folder = work / f"trial{trial.number}"
        folder.mkdir()
        try:
            own = job_of(trial.settings)
            judged.append((trial, own, _judged(alone(own, space, trial.settings), folder)))
        except (InputError, CheckFailed) as error:
            failed[trial.number] = str(error)
            job.progress.say(f"search   trial {trial.number} failed: {error}")
    times = _timed(job, [one for *_, one in judged])
    found = [
        _finalist(trial, own, one, bench) for (trial, own, one), bench in zip(judged, times, strict=True)
    ]
    return found, failed


def _judged(job: Job, work: Path) -> _Judged:
    """Build, parity and words of one trial. Raises InputError or CheckFailed."""
    made = build(job, work)
    result = made.results[-1]
    agreement = measure_all_parity(job, made)[result.key].argmax_agreement
    wer = quality_of(job, made, result.key).score.wer
    return _Judged(load(job.line, job.spec, result), made.hashes[result.key], wer, agreement)


def _timed(job: Job, judged: Sequence[_Judged]) -> list[dict[str, Any]]:
    """All of them in one run, in turns."""

    def time() -> list[dict[str, Any]]:
        return interleaved([one.loaded for one in judged], job.compared.recordings, job.progress)

    key = job.keys.latency([one.sha256 for one in judged])
    found: list[dict[str, Any]] = job.cache.value("latency-search", key, time)
    return found


def _finalist(trial: Trial, job: Job, judged: _Judged, bench: dict[str, Any]) -> Finalist:
    assert job.evaluation is not None
    figures = Figures(
        wer=judged.wer,
        utterances=len(job.evaluation.recordings),
        rtf=bench["rtf"],
        latency_ms=bench["chunk_latency_ms"]["p50"],
        chunk_ms=bench["chunk_ms"],
        bytes=bench["artifact_bytes"],
    )
    return Finalist(trial, job, figures, judged.agreement)
