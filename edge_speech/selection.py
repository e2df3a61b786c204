"""Which of a bundle's artifacts runs here: on the first load all that can are tried, the fastest is kept.

It must give the golden log_probs, as `verify` has it. What was found is noted in a file beside the bundle and
holds for that bundle, these engines, this machine and as many threads; where nothing can be noted nothing is
measured, as one run may then choose another than the next, and the first that is right is taken.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_speech.bench import read_golden
from edge_speech.bundle import GOLDEN_LOG_PROBS, GOLDEN_WAVEFORM, MANIFEST, Artifact, Bundle, sha256_of
from edge_speech.encoder import FloatArray
from edge_speech.engine_cache import FOLDER as ENGINES
from edge_speech.errors import CheckFailed, FellBack, InputError
from edge_speech.recognizer import Recognizer
from edge_speech.verification import compare

# The golden recording is heard so many times by each, in turns.
ROUNDS = 5
# The bundle's order is that of its maker; a later artifact takes the place of an earlier one from here on.
WORTHWHILE = 0.9


@dataclass(frozen=True)
class Tried:
    """An artifact, and how long it takes for a chunk, or why it cannot be used here."""

    path: str
    backend: str
    precision: str
    chunk_ms: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Selection:
    """What was measured, now or at an earlier load, and which artifact in which engine it speaks for;
    `noted_in` is a file beside the bundle."""

    path: str
    backend: str
    tried: tuple[Tried, ...]
    noted_in: str
    is_new: bool

    @property
    def was_a_choice(self) -> bool:
        """Whether more than one artifact is right here."""
        return sum(one.chunk_ms is not None for one in self.tried) > 1

    def in_words(self) -> str:
        """One line for a person."""
        right = [t for t in self.tried if t.chunk_ms is not None]
        chosen = next(t for t in right if (t.path, t.backend) == (self.path, self.backend))
        others = ", ".join(f"{t.backend}/{t.precision} {t.chunk_ms:.2f}" for t in right if t is not chosen)
        runs = f"{chosen.backend}/{chosen.precision} runs, with {chosen.chunk_ms:.2f} ms a chunk"
        return f"{runs} here ({others}); noted in {self.noted_in}"


def load_fastest(
    bundle: Bundle, candidates: Sequence[Artifact], path: Path, num_threads: int
) -> tuple[Recognizer, Selection | None]:
    """The recognizer of the fastest artifact, the one noted for the bundle at `path`, or the only one.

    An artifact that does not load, or is not right, is passed over with a warning (FellBack). Raises
    InputError where none is left.
    """
    if len(candidates) == 1:
        return Recognizer.from_artifact(bundle, candidates[0], num_threads), None
    path = path.resolve()
    note = path.with_name(f".{path.name}.backend.json")
    key = _key(bundle, candidates, num_threads)
    noted = _read(note, key)
    if noted is not None:
        chosen = next(a for a in candidates if (a.path, a.backend) == (noted.path, noted.backend))
        try:
            recognizer = Recognizer.from_artifact(bundle, chosen, num_threads)
        except InputError:
            pass  # it did load once: everything is tried anew
        else:
            _warn(noted.tried, candidates, chosen)
            return recognizer, noted
    if not os.access(note.parent, os.W_OK):
        return _first(bundle, candidates, num_threads), None
    return _measured(bundle, candidates, note, key, num_threads)


def _first(bundle: Bundle, candidates: Sequence[Artifact], num_threads: int) -> Recognizer:
    problems = []
    for artifact in candidates:
        try:
            recognizer = _right(bundle, artifact, num_threads)
        except (InputError, CheckFailed) as error:
            problems.append(_failed(artifact, error))
            continue
        _warn(problems, candidates, artifact)
        return recognizer
    raise InputError(problems[0].problem)


def _measured(
    bundle: Bundle, candidates: Sequence[Artifact], note: Path, key: dict[str, Any], num_threads: int
) -> tuple[Recognizer, Selection | None]:
    waveform, found, tried = read_golden(bundle, GOLDEN_WAVEFORM), {}, []
    if waveform is None:
        return _first(bundle, candidates, num_threads), None
    for artifact in candidates:
        try:
            found[artifact] = _right(bundle, artifact, num_threads)
        except (InputError, CheckFailed) as error:
            tried.append(_failed(artifact, error))
    if not found:
        raise InputError(tried[0].problem)
    times = _times(found, waveform)
    best = next(iter(found))
    for artifact in found:
        best = artifact if times[artifact] < WORTHWHILE * times[best] else best
    _warn(tried, candidates, best)
    tried += [Tried(a.path, a.backend, a.precision, times[a]) for a in found]
    selection = Selection(best.path, best.backend, tuple(tried), note.name, True)
    _write(note, {**key, **asdict(selection)})
    return found[best], selection


def _failed(artifact: Artifact, error: Exception) -> Tried:
    return Tried(artifact.path, artifact.backend, artifact.precision, None, str(error))


def _warn(tried: Sequence[Tried], candidates: Sequence[Artifact], chosen: Artifact) -> None:
    """Of what its maker put before the chosen one and what does not work here, at every load."""
    before = {(a.path, a.backend) for a in candidates[: candidates.index(chosen)]}
    for one in tried:
        if one.problem is not None and (one.path, one.backend) in before:
            runs = f"{chosen.backend}/{chosen.precision} runs instead"
            warnings.warn(f"{one.problem}; {runs}", FellBack, stacklevel=5)


def _right(bundle: Bundle, artifact: Artifact, num_threads: int) -> Recognizer:
    """Loaded, and held against the golden log_probs. Raises InputError, CheckFailed."""
    recognizer = Recognizer.from_artifact(bundle, artifact, num_threads)
    waveform, log_probs = (read_golden(bundle, name) for name in (GOLDEN_WAVEFORM, GOLDEN_LOG_PROBS))
    if waveform is not None and log_probs is not None:
        compare(recognizer, artifact, waveform, log_probs)
    return recognizer


def _times(recognizers: dict[Artifact, Recognizer], waveform: FloatArray) -> dict[Artifact, float]:
    """Milliseconds of a chunk, the shortest of a few rounds in which all take turns."""
    streams = {artifact: one.create_stream(beam_size=1) for artifact, one in recognizers.items()}
    best = dict.fromkeys(streams, float("inf"))
    for _ in range(ROUNDS):
        for artifact, stream in streams.items():
            stream.reset()
            start = time.perf_counter()
            stream.accept_waveform(waveform, recognizers[artifact].frontend.sample_rate)
            stream.input_finished()
            best[artifact] = min(best[artifact], 1e3 * (time.perf_counter() - start) / max(1, stream.steps))
    return best


def _key(bundle: Bundle, candidates: Sequence[Artifact], num_threads: int) -> dict[str, Any]:
    """What a note holds for; where any of it differs everything is measured anew."""
    return {
        "bundle_sha256": sha256_of(bundle.root / MANIFEST),
        "artifacts": [[artifact.path, artifact.backend] for artifact in candidates],
        "engines": sorted([f.name, f.stat().st_mtime_ns] for f in (bundle.root / ENGINES).glob("*")),
        "machine": [platform.node(), platform.machine(), platform.release()],
        "versions": {name: _version(name) for name in ("edge-speech", *{a.backend for a in candidates})},
        "num_threads": num_threads,
    }


def _version(name: str) -> str:
    """Of the engine's package; engines whose package has another name are told apart by ours alone."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _read(note: Path, key: dict[str, Any]) -> Selection | None:
    """What was noted for `key`; a note that cannot be read is none."""
    try:
        plain = json.loads(note.read_text(encoding="utf-8"))
        chosen = plain["path"], plain["backend"]
        if {name: plain[name] for name in key} != key or [*chosen] not in key["artifacts"]:
            return None
        return Selection(*chosen, tuple(Tried(**t) for t in plain["tried"]), note.name, False)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _write(note: Path, plain: dict[str, Any]) -> None:
    """Under a temporary name first; a full disk only means that the next load measures again."""
    with suppress(OSError), tempfile.TemporaryDirectory(dir=note.parent, prefix=f"{note.name}.") as folder:
        fresh = Path(folder) / note.name
        fresh.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        fresh.replace(note)
