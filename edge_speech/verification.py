"""Does a bundle still give, on this machine, what it gave where it was made?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech import backends
from edge_speech.bench import read_golden
from edge_speech.bundle import (
    GOLDEN_FEATURES,
    GOLDEN_LOG_PROBS,
    GOLDEN_TEXT,
    GOLDEN_WAVEFORM,
    Artifact,
    Bundle,
    verify_bundle,
)
from edge_speech.ctc import CtcConfig
from edge_speech.decoder import bundle_decoder, describe, in_words, open_decoder, text_of
from edge_speech.encoder import FloatArray
from edge_speech.errors import CheckFailed, FellBack, InputError
from edge_speech.features import FrontendConfig, OnlineFrontend, frontend_from_dict
from edge_speech.recognizer import Recognizer

# Largest differences of log_probs from the float32 model: rounding in fp32, half precision in fp16. What is
# quantised further is held to the share of rows whose best symbol is the model's.
TOLERANCES = {"fp32": 2e-3, "fp16": 0.2}
LOWEST_AGREEMENT = 0.9
_FEATURES_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ArtifactCheck:
    """One artifact in one engine against the golden log_probs; the last two are None when it was not run
    here."""

    path: str
    backend: str
    precision: str
    status: str
    max_abs_difference: float | None
    agreement: float | None


@dataclass(frozen=True)
class Verification:
    """A bundle that passed. `features_difference` and `text` are None when it has no golden vectors.

    `text` is the golden one, which the bundle's `decoder` gave again.
    """

    files: int
    features_difference: float | None
    artifacts: tuple[ArtifactCheck, ...]
    decoder: dict[str, Any]
    text: str | None


def verify(path: Path | str) -> Verification:
    """Check all files, the front end, the decoder and every artifact that runs here, in every engine that
    `auto` may choose.

    Raises InputError on a damaged bundle, CheckFailed when a stage does not give the golden result.
    """
    bundle = verify_bundle(path)
    waveform, features, log_probs = (
        read_golden(bundle, name) for name in (GOLDEN_WAVEFORM, GOLDEN_FEATURES, GOLDEN_LOG_PROBS)
    )
    difference = None
    if waveform is not None and features is not None:
        difference = _check_features(waveform, features, frontend_from_dict(bundle.manifest.frontend))
    decoder = bundle_decoder(bundle)
    text = None if log_probs is None else _check_text(bundle, decoder, log_probs)
    own = bundle.manifest.artifacts
    checks = [_check_artifact(bundle, a, waveform, log_probs) for a in own]
    further = [a for a in backends.others(own) if a.status != "planned" and not backends.missing(a.backend)]
    checks += [_check_elsewhere(bundle, a, waveform, log_probs) for a in further]
    return Verification(len(bundle.manifest.files), difference, tuple(checks), describe(decoder), text)


def _check_features(waveform: FloatArray, features: FloatArray, config: FrontendConfig) -> float:
    online = OnlineFrontend(config)
    online.accept_waveform(waveform, config.sample_rate)
    online.input_finished()
    difference = _largest_difference(online.read(), features, "features")
    if not difference <= _FEATURES_TOLERANCE:
        raise CheckFailed(
            f"features differ from the golden ones by {difference:.2e}, allowed {_FEATURES_TOLERANCE:g}; "
            "this install's front end is not the one the bundle was made with"
        )
    return difference


def _check_text(bundle: Bundle, config: CtcConfig | None, log_probs: FloatArray) -> str | None:
    """The golden text, from the golden log_probs by the bundle's decoder."""
    entry = next((e for e in bundle.manifest.golden if e.path == GOLDEN_TEXT), None)
    if entry is None:
        return None
    golden = bundle.verified_path(entry).read_text(encoding="utf-8", errors="replace")
    decoder = open_decoder(bundle.tokens, config, bundle.manifest.decoder["blank_id"])
    text = text_of(decoder, log_probs)
    if text != golden:
        raise CheckFailed(
            f"by {in_words(describe(config))} the golden log_probs give {text[:60]!r}, but the golden text "
            f"is {golden[:60]!r}; this install's decoder is not the one the bundle was made with"
        )
    return text


def _check_artifact(
    bundle: Bundle, artifact: Artifact, waveform: FloatArray | None, log_probs: FloatArray | None
) -> ArtifactCheck:
    here = artifact.status != "planned" or backends.has_engine(bundle, artifact)
    if not here or backends.missing(artifact.backend) or waveform is None or log_probs is None:
        return _not_compared(artifact)
    return compare(Recognizer.from_artifact(bundle, artifact), artifact, waveform, log_probs)


def _check_elsewhere(
    bundle: Bundle, artifact: Artifact, waveform: FloatArray | None, log_probs: FloatArray | None
) -> ArtifactCheck:
    """In an engine it was not made for: that this one does not read it is no fault of the bundle."""
    try:
        return _check_artifact(bundle, artifact, waveform, log_probs)
    except InputError as error:
        warnings.warn(f"{error}; not compared", FellBack, stacklevel=3)
        return _not_compared(artifact)


def _not_compared(artifact: Artifact) -> ArtifactCheck:
    return ArtifactCheck(artifact.path, artifact.backend, artifact.precision, artifact.status, None, None)


def compare(
    recognizer: Recognizer, artifact: Artifact, waveform: FloatArray, log_probs: FloatArray
) -> ArtifactCheck:
    """What `recognizer`, which runs `artifact`, makes of the golden waveform. Raises CheckFailed."""
    stream = recognizer.create_stream(keep_log_probs=True, beam_size=1)
    stream.accept_waveform(waveform, recognizer.frontend.sample_rate)
    stream.input_finished()
    rows = stream.log_probs()
    difference = _largest_difference(rows, log_probs, artifact.path)
    agreement = float(np.mean(rows.argmax(axis=1) == log_probs.argmax(axis=1))) if len(rows) else 1.0
    _judge(artifact, difference, agreement)
    names = artifact.path, artifact.backend, artifact.precision, artifact.status
    return ArtifactCheck(*names, difference, agreement)


def _judge(artifact: Artifact, difference: float, agreement: float) -> None:
    tolerance = TOLERANCES.get(artifact.precision, np.inf)
    if difference <= tolerance and agreement >= LOWEST_AGREEMENT:
        return
    raise CheckFailed(
        f"{artifact.path} in {artifact.backend} does not give the golden log_probs: they differ by "
        f"{difference:.2e} (allowed: {tolerance:g}) and {agreement:.1%} of the best symbols agree (at least "
        f"{LOWEST_AGREEMENT:.0%}); make the bundle again"
    )


def _largest_difference(got: FloatArray, expected: FloatArray, what: str) -> float:
    """Largest absolute difference. Raises InputError when the golden array has another shape."""
    if got.shape != expected.shape:
        raise InputError(
            f"{what}: got {got.shape}, the golden vector is {expected.shape}; make the bundle again"
        )
    both_impossible = np.isneginf(got) & np.isneginf(expected)
    with np.errstate(invalid="ignore"):
        difference = np.where(both_impossible, 0, np.abs(got - expected))
    return float(difference.max()) if difference.size else 0.0
