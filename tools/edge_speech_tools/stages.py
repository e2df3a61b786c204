"""The steps that take time: every pass, and every measurement of what it made. Each is kept when done."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.backends import load_encoder
from edge_speech.bundle import sha256_of
from edge_speech.encoder import Encoder, FloatArray
from edge_speech.quality import Score
from edge_speech_tools import parity, sherpa_text
from edge_speech_tools.cache import Entry
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.convert import sherpa_onnx
from edge_speech_tools.decoding import Decoded
from edge_speech_tools.drift import Drift, diverge, drift_line, long_stream, stream_rows
from edge_speech_tools.evaluation import (
    PYTORCH,
    Measured,
    Quality,
    measure_parity,
    measure_quality,
    measure_reference,
    parity_line,
)
from edge_speech_tools.job import Job
from edge_speech_tools.latency import measure_latency
from edge_speech_tools.linter import Finding, lint_model, lint_recordings
from edge_speech_tools.parity import Parity
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.reference import rows
from edge_speech_tools.sherpa_text import TextCheck

_ARRAYS_FILE = "log_probs.npz"


@dataclass(frozen=True)
class Made:
    """Artifacts by `backend/precision`, their SHA-256, and the engines that can run them here."""

    results: tuple[PassResult, ...]
    hashes: dict[str, str]
    engine: Callable[[str], Encoder]

    @property
    def runnable(self) -> list[str]:
        """Keys of the artifacts that an engine here can run."""
        return [r.key for r in self.results if r.check_backend is not None]


def lint(job: Job) -> list[Finding]:
    """Before anything is built: the model (once for each checkpoint), then the recordings."""
    precisions = {job.passes[name].PRECISION for name in job.plan.candidates}
    tiles = {
        name: tile for name, tile in job.target.tiles.items() if any(p.startswith(name) for p in precisions)
    }

    def of_model() -> list[dict[str, str]]:
        return [one.as_json() for one in lint_model(job.loaded.model, job.spec, tiles)]

    plain = job.cache.value("lint", job.keys.lint(tiles), of_model)
    given = lint_recordings(job.calibration, job.evaluation, job.config.accuracy_budget)
    return [*(Finding(**one) for one in plain), *given]


# -- building -----------------------------------------------------------------------------------------------


def build(job: Job, work: Path) -> Made:
    """Run the passes in the plan's order, or take what an earlier run made; all files end up in `work`."""
    results = []

    @cache
    def source() -> Source:
        features, loaded = _calibration_features(job), job.loaded
        line = job.line.frontend, loaded.tokens
        return Source(loaded.model, job.spec, work, features, job.target.recipe, loaded.quantization, *line)

    for name in job.progress.bar(job.plan.passes, "build"):
        key = job.keys.build(name)
        entry = job.cache.get(f"build-{name}", key)
        results.append(_restore(entry, work) if entry else _make(job, name, key, source()))
        kept = " (cached)" if entry else ""
        job.progress.say(f"build    {results[-1].key}: {results[-1].path.stat().st_size} bytes{kept}")
    by_key = {result.key: result for result in results}

    @cache
    def engine(key: str) -> Encoder:
        backend = by_key[key].check_backend
        assert backend is not None
        return load_encoder(backend, by_key[key].path, job.spec)

    return Made(tuple(results), {key: sha256_of(r.path) for key, r in by_key.items()}, engine)


def _make(job: Job, name: str, key: str, source: Source) -> PassResult:
    before = _listed(source.directory)
    result = job.passes[name].run(source)
    fresh = [path for path, seen in _listed(source.directory).items() if before.get(path) != seen]
    job.cache.put(f"build-{name}", key, _as_plain(result), fresh)
    return result


def _listed(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every file and what changes when it is written."""
    return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()) if p.is_file()}


def _as_plain(result: PassResult) -> dict[str, Any]:
    plain = {**asdict(result), "path": result.path.name, "sha256": sha256_of(result.path)}
    return {**plain, "companions": [path.name for path in result.companions]}


def _restore(entry: Entry, work: Path) -> PassResult:
    for name in entry.files:
        shutil.copyfile(entry.folder / name, work / name)
    plain = {key: value for key, value in entry.value.items() if key != "sha256"}
    companions = tuple(work / name for name in plain.pop("companions"))
    return PassResult(**{**plain, "path": work / plain["path"]}, companions=companions)


def _calibration_features(job: Job) -> Sequence[FloatArray]:
    """Computed as they are read, so that a set of any length fits into memory."""
    return CalibrationSet(job.calibration.recordings, job.line.frontend) if job.calibration else ()


# -- measuring ----------------------------------------------------------------------------------------------


def measure(job: Job, made: Made) -> Measured:
    """Parity, then WER, then latency, then drift, of every artifact that an engine here can run."""
    differences = measure_all_parity(job, made)
    quality = {key: quality_of(job, made, key) for key in _judged(job, made)}
    return Measured(
        results=made.results,
        parity=differences,
        quality=quality,
        latency=_latency(job, made),
        compared=job.compared.name,
        drift=_measure_drift(job, made),
        texts=_measure_texts(job, made),
    )


def measure_all_parity(job: Job, made: Made) -> dict[str, Parity]:
    """Each artifact against PyTorch. Raises CheckFailed when an fp32 one differs."""
    wanted, found = cache(lambda: _reference(job)), {}
    job.cache.keep("reference", job.keys.parity(PYTORCH))
    for key in made.runnable:

        def compare(key: str = key) -> dict[str, Any]:
            differences = measure_parity(job.line, made.engine(key), wanted(), job.compared, job.progress)
            return asdict(differences)

        plain = job.cache.value(f"parity-{key}", job.keys.parity(made.hashes[key]), compare)
        found[key] = Parity(**plain)
        job.progress.say(parity_line(key, found[key]))
        if key.endswith("/fp32"):
            parity.check_fp32(key, found[key])
    return found


def _reference(job: Job) -> list[Decoded]:
    """PyTorch's log_probs of the compared recordings, from an earlier run or computed."""
    key = job.keys.parity(PYTORCH)
    entry = job.cache.get("reference", key)
    if entry is None:
        heard = measure_reference(job.line, job.reference, job.compared, job.progress)
        _keep_arrays(job, "reference", key, [one.text for one in heard], [_log_probs(one) for one in heard])
        return heard
    return [Decoded(text, array) for text, array in zip(entry.value, _arrays(entry), strict=True)]


def _log_probs(decoded: Decoded) -> FloatArray:
    assert decoded.log_probs is not None
    return decoded.log_probs


def _judged(job: Job, made: Made) -> list[str]:
    return [PYTORCH, *made.runnable] if job.evaluation is not None else []


def quality_of(job: Job, made: Made, key: str) -> Quality:
    """Word errors of one encoder; those of PyTorch are the given model's."""
    if key == PYTORCH and job.given is not None:
        return quality_of(job.given, made, key)
    assert job.evaluation is not None
    recordings = job.evaluation.recordings

    def judge() -> dict[str, Any]:
        encoder = job.reference if key == PYTORCH else made.engine(key)
        found = measure_quality(job.line, {key: encoder}, recordings, job.progress)[key]
        return {"score": _score(found.score), "greedy": _score(found.greedy)}

    step, of = f"quality-{key}", job.keys.quality(made.hashes.get(key, key))
    known = job.cache.get(step, of)
    plain = job.cache.put(step, of, judge()).value if known is None else known.value
    scores = {name: Score(*(np.array(c, np.int64) for c in columns)) for name, columns in plain.items()}
    if known is not None:
        job.progress.say(f"quality  {key}: WER {scores['score'].wer:.2f} % (cached)")
    return Quality(**scores)


def _score(score: Score) -> list[list[int]]:
    return [[int(n) for n in score.errors], [int(n) for n in score.words]]


def _measure_texts(job: Job, made: Made) -> dict[str, TextCheck]:
    """What sherpa-onnx itself makes of the artifact that is for it; nothing where it is not installed."""
    found = {}
    for result in made.results:
        if result.backend != sherpa_onnx.BACKEND or not sherpa_text.installed():
            continue

        def compare(path: Path = result.path) -> dict[str, Any]:
            return asdict(sherpa_text.check(path, job.line, job.reference, job.compared.recordings))

        key = job.keys.parity(made.hashes[result.key])
        found[result.key] = TextCheck(**job.cache.value(f"texts-{result.key}", key, compare))
        job.progress.say(f"texts    {result.key}: {found[result.key].in_words()}")
    return found


def _latency(job: Job, made: Made) -> dict[str, dict[str, Any]]:
    timed = [r for r in made.results if r.check_backend == r.backend]

    def time() -> dict[str, dict[str, Any]]:
        return measure_latency(job.line, job.spec, timed, job.compared.recordings, job.progress)

    found: dict[str, dict[str, Any]] = job.cache.value(
        "latency", job.keys.latency(_hashes(made, timed)), time
    )
    return found


def _hashes(made: Made, results: Sequence[PassResult]) -> list[str]:
    return [made.hashes[r.key] for r in results]


def _measure_drift(job: Job, made: Made) -> dict[str, Drift]:
    """Each artifact's divergence from PyTorch over a long stream of the recordings that were given."""
    given, found = job.evaluation or job.calibration, {}
    if given is None:
        return {}
    job.cache.keep("drift-reference", job.keys.drift(PYTORCH))

    @cache
    def stream() -> tuple[FloatArray, FloatArray]:
        features = long_stream(given.recordings, job.line.frontend)
        return features, _long_reference(job, features)

    for key in job.progress.bar(made.runnable, "drift"):

        def compare(key: str = key) -> dict[str, Any]:
            features, reference = stream()
            row_s = job.spec.subsampling_factor * job.line.frontend.frame_shift_ms / 1000
            rows_of = stream_rows(made.engine(key), features, job.spec)
            return asdict(diverge(reference, rows_of, job.spec.output_frames, row_s))

        found[key] = Drift(**job.cache.value(f"drift-{key}", job.keys.drift(made.hashes[key]), compare))
        job.progress.say(drift_line(key, found[key]))
    return found


def _long_reference(job: Job, features: FloatArray) -> FloatArray:
    """PyTorch's log_probs of the long stream, from an earlier run or computed."""
    key = job.keys.drift(PYTORCH)
    entry = job.cache.get("drift-reference", key)
    if entry is not None:
        return _arrays(entry)[0]
    found = rows(job.loaded.model, job.spec, features)
    _keep_arrays(job, "drift-reference", key, None, [found])
    return found


def _keep_arrays(job: Job, step: str, key: str, value: Any, arrays: Sequence[FloatArray]) -> None:
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / _ARRAYS_FILE
        np.savez(path, **{f"a{i}": array for i, array in enumerate(arrays)})  # type: ignore[arg-type]
        job.cache.put(step, key, value, [path])


def _arrays(entry: Entry) -> list[FloatArray]:
    with np.load(entry.folder / _ARRAYS_FILE, allow_pickle=False) as arrays:
        return [arrays[f"a{i}"] for i in range(len(arrays.files))]


# -- what is there already ----------------------------------------------------------------------------------


def cached_steps(job: Job) -> dict[str, str]:
    """By action (of builds with the artifact's key): "cached", or how much of it is."""
    hashes: dict[str, str | None] = {}
    marks = {}
    for name in job.plan.passes:
        entry = job.cache.get(f"build-{name}", job.keys.build(name))
        key = f"{job.passes[name].BACKEND}/{job.passes[name].PRECISION}"
        hashes[key] = entry.value["sha256"] if entry else None
        marks[f"build {key}"] = "cached" if entry else ""
    for step, key_of_step in (("parity", job.keys.parity), ("drift", job.keys.drift)):
        there = [_is_there(job, f"{step}-{k}", key_of_step, sha) for k, sha in hashes.items()]
        marks[step] = _share(there)
    judged = [_is_there(job, f"quality-{k}", job.keys.quality, sha) for k, sha in hashes.items()]
    judged.append(_is_there(job, f"quality-{PYTORCH}", (job.given or job).keys.quality, PYTORCH))
    return {**marks, "quality": _share(judged) if job.evaluation else ""}


def _is_there(job: Job, step: str, key_of_step: Callable[[str], str], sha256: str | None) -> bool:
    return sha256 is not None and job.cache.get(step, key_of_step(sha256)) is not None


def _share(there: Sequence[bool]) -> str:
    if all(there):
        return "cached"
    return f"{sum(there)} of {len(there)} cached" if any(there) else ""
