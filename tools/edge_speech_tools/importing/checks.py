"""What cannot be right about a model, found before the first decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import CheckFailed
from edge_speech.features import FrontendConfig, features_of
from edge_speech_tools.importing.tokens import Tokens
from edge_speech_tools.streaming import windows

ERROR, WARNING = "error", "warning"
# Of two seconds of silence, the share of rows whose best symbol must be the blank.
SILENT_BLANKS = 0.5
_NORMALISED_WITHIN = 1e-2


@dataclass(frozen=True)
class Doubt:
    """Something that is not as it must be (`error`), or rarely is (`warning`), and what to do."""

    check: str
    severity: str
    message: str
    remedy: str

    def line(self) -> str:
        """One line for a person."""
        return f"{self.severity}: {self.message}; {self.remedy}"


@dataclass(frozen=True)
class Trial:
    """What a model gave over one waveform: log_probs (T, V), and which states changed."""

    log_probs: FloatArray
    changed: tuple[bool, ...]


def check_numbers(rows: int, chunk_frames: int, subsampling_factor: int, right_context_frames: int) -> int:
    """The subsampling factor that a step of `rows` rows and `chunk_frames` frames has. Raises CheckFailed.

    `subsampling_factor` is what was said of it, 0 when nothing was.
    """
    if rows < 1 or chunk_frames % rows:
        raise CheckFailed(
            f"a step gives {rows} rows and moves on by {chunk_frames} frames, no whole number for each row: "
            "the stride is wrong; correct chunk_frames in --spec"
        )
    factor = chunk_frames // rows
    if subsampling_factor not in (0, factor):
        raise CheckFailed(
            f"a step gives {rows} rows; at a subsampling factor of {subsampling_factor} they stand for "
            f"{rows * subsampling_factor} frames, but the stream moves on by {chunk_frames}: correct "
            "chunk_frames or subsampling_factor in --spec"
        )
    if right_context_frames < 0:
        raise CheckFailed(
            f"a step reads {chunk_frames + right_context_frames} frames and moves on by {chunk_frames}: "
            "frames between would never be read; correct chunk_frames in --spec"
        )
    return factor


def check_vocabulary(vocab_size: int, tokens: Tokens) -> None:
    """Raises CheckFailed unless there is a token for every column."""
    if vocab_size != len(tokens.symbols):
        raise CheckFailed(
            f"the model gives {vocab_size} log-probabilities, the tokens file has {len(tokens.symbols)} "
            "symbols: it is another model's"
        )


def check_features(bins: int, frontend: FrontendConfig) -> None:
    """Raises CheckFailed unless the front end gives what the model reads."""
    if bins != frontend.num_features:
        raise CheckFailed(
            f"the model reads {bins} features, its front end gives {frontend.num_features}; correct "
            "[frontend] in --spec (num_mel_bins)"
        )


def try_out(step: Any, spec: StreamingSpec, frontend: FrontendConfig, waveform: FloatArray) -> Trial:
    """One stream of a waveform (N,). `step(features, *state)` → [log_probs, *state], as in the graph."""
    state = [np.zeros(s.shape, s.dtype) for s in spec.state]
    changed, rows = [False] * len(state), []
    for window in windows(features_of(waveform, frontend), spec):
        log_probs, *following = step(window, *state)
        changed = [c or not np.array_equal(a, b) for c, a, b in zip(changed, state, following, strict=True)]
        state = following
        rows.append(np.array(log_probs[0]))
    return Trial(np.concatenate(rows), tuple(changed))


def doubts(spec: StreamingSpec, tokens: Sequence[str], speech: Trial, silence: Trial) -> list[Doubt]:
    """What two trials show; the blank is column 0 of `tokens`."""
    found = [*_numbers(speech.log_probs), *_unchanged(spec, speech)]
    return found or [*_blank(tokens, silence.log_probs), *_silent(speech.log_probs)]


def _numbers(log_probs: FloatArray) -> list[Doubt]:
    if not np.isfinite(log_probs.max(axis=1)).all():
        return [Doubt("finite", ERROR, "the model gives NaN or infinity on speech", "check its front end")]
    with np.errstate(over="ignore"):
        sums = np.log(np.exp(log_probs.astype(np.float64)).sum(axis=1))
    if np.abs(sums).max() <= _NORMALISED_WITHIN:
        return []
    plain = log_probs.min() >= 0 and np.abs(log_probs.sum(axis=1) - 1).max() <= _NORMALISED_WITHIN
    what = "probabilities" if plain else f"no log-probabilities (their exponentials sum to e^{sums[0]:.3g})"
    remedy = (
        "take their logarithm before the export" if plain else 'say output = "logits" in --spec if they are'
    )
    return [Doubt("normalised", ERROR, f"the model gives {what}", remedy)]


def _unchanged(spec: StreamingSpec, speech: Trial) -> list[Doubt]:
    still = [s.name for s, changed in zip(spec.state, speech.changed, strict=True) if not changed]
    if not still:
        return []
    named = f"{', '.join(still[:3])}{' and others' if len(still) > 3 else ''}"
    every = len(still) == len(spec.state)
    return [
        Doubt(
            "state",
            ERROR if every else WARNING,
            f"state {named} never changes over speech",
            "it was baked into the graph, or inputs and outputs are paired wrongly: pair them in --spec",
        )
    ]


def _blank(tokens: Sequence[str], silence: FloatArray) -> list[Doubt]:
    counts = np.bincount(silence.argmax(axis=1), minlength=len(tokens))
    share, most = counts[0] / max(1, counts.sum()), int(counts.argmax())
    if share >= SILENT_BLANKS:
        return []
    message = (
        f"on silence the blank is the best symbol of {share:.0%} of the rows, {tokens[most]!r} of "
        f"{counts[most] / counts.sum():.0%}"
    )
    remedy = "the blank or the order of the tokens is wrong, or the front end: see [decoder] blank in --spec"
    # A symbol that silence is sure of is the blank of a model whose tokens were read wrongly.
    sure = counts[most] / counts.sum() >= 0.9
    return [Doubt("blank", ERROR if sure else WARNING, message, remedy)]


def _silent(speech: FloatArray) -> list[Doubt]:
    if (speech.argmax(axis=1) != 0).any():
        return []
    message = "the blank is the best symbol of every row, on speech too"
    return [Doubt("deaf", WARNING, message, "check the front end's scale, or give --audio with clear speech")]
