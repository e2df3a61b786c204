"""Does an artifact give what the model gives, over whole recordings?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import CheckFailed
from edge_speech.verification import TOLERANCES
from edge_speech_tools.decoding import Decoded

# float32 engines differ by rounding only; the bundle is held to the same figure on the device.
FP32_MAX_ABS = TOLERANCES["fp32"]


@dataclass(frozen=True)
class Parity:
    """Differences of log_probs; `argmax_agreement` is a share of frames, `text_identical` of recordings."""

    max_abs: float
    mean_abs: float
    argmax_agreement: float
    text_identical: float
    recordings: int
    frames: int


def compare(reference: Iterable[Decoded], artifact: Iterable[Decoded]) -> Parity:
    """Compare what was decoded from the same recordings. Raises CheckFailed when the lengths differ."""
    pairs = list(zip(reference, artifact, strict=True))
    differences = [_difference(*pair) for pair in pairs]
    frames = sum(d.size // d.shape[1] for d in differences)
    agreeing = sum(int(np.sum(_rows(a).argmax(1) == _rows(b).argmax(1))) for a, b in pairs)
    return Parity(
        max_abs=max((float(d.max()) for d in differences if d.size), default=0.0),
        mean_abs=sum(float(d.sum()) for d in differences) / max(1, sum(d.size for d in differences)),
        argmax_agreement=agreeing / max(1, frames),
        text_identical=sum(a.text == b.text for a, b in pairs) / max(1, len(pairs)),
        recordings=len(pairs),
        frames=frames,
    )


def check_fp32(key: str, parity: Parity) -> None:
    """The gate of fp32 artifacts. Raises CheckFailed."""
    if not parity.max_abs <= FP32_MAX_ABS or parity.text_identical < 1:
        raise CheckFailed(
            f"{key} differs from the model: log_probs by {parity.max_abs:.2e} (at most {FP32_MAX_ABS:.0e}), "
            f"{parity.text_identical:.1%} of the texts identical; the bundle was not written"
        )


def _difference(reference: Decoded, artifact: Decoded) -> FloatArray:
    want, got = _rows(reference), _rows(artifact)
    if want.shape != got.shape:
        raise CheckFailed(f"an artifact gave log_probs {got.shape} where the model gives {want.shape}")
    difference: FloatArray = np.abs(got - want)
    return difference


def _rows(decoded: Decoded) -> FloatArray:
    assert decoded.log_probs is not None
    return decoded.log_probs
