"""What is measured of the model and of every artifact: parity, word error rate, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_speech.encoder import Encoder
from edge_speech_tools import parity, quality
from edge_speech_tools.decoding import Line, decode
from edge_speech_tools.parity import Parity
from edge_speech_tools.passes import PassResult
from edge_speech_tools.progress import Progress
from edge_speech_tools.quality import Score
from edge_speech_tools.recordings import Recording, RecordingSet

PARITY_RECORDINGS = 20
PYTORCH = "pytorch"


@dataclass(frozen=True)
class Measured:
    """What the passes made, and what was measured of each by `backend/precision`.

    `parity`, `scores` and `latency` hold no entry where nothing was measured; `scores` has one more,
    `pytorch`. `latency` values have the keys of `edge-speech bench`. `compared` names the recordings.
    """

    results: tuple[PassResult, ...]
    parity: Mapping[str, Parity]
    scores: Mapping[str, Score]
    latency: Mapping[str, dict[str, Any]]
    compared: str


def measure_parity(
    line: Line, reference: Encoder, engines: Mapping[str, Encoder], compared: RecordingSet, progress: Progress
) -> dict[str, Parity]:
    """Each artifact against PyTorch over whole recordings. Raises CheckFailed when an fp32 one differs."""
    recordings = compared.recordings[:PARITY_RECORDINGS]

    def run(encoder: Encoder, label: str) -> list[Any]:
        return list(decode(line, encoder, progress.bar(recordings, f"parity {label}"), keep_log_probs=True))

    wanted = run(reference, PYTORCH)
    found = {}
    for key, encoder in engines.items():
        found[key] = parity.compare(wanted, run(encoder, key))
        progress.say(_parity_line(key, found[key]))
        if key.endswith("/fp32"):
            parity.check_fp32(key, found[key])
    return found


def _parity_line(key: str, p: Parity) -> str:
    return (
        f"parity   {key}: log_probs differ by up to {p.max_abs:.2e}, {p.argmax_agreement:.2%} of {p.frames} "
        f"frames and {p.text_identical:.0%} of {p.recordings} texts agree"
    )


def measure_quality(
    line: Line, encoders: Mapping[str, Encoder], recordings: Sequence[Recording], progress: Progress
) -> dict[str, Score]:
    """Word errors of each encoder, by key, on all recordings."""
    references = [recording.text for recording in recordings]
    scores = {}
    for key, encoder in encoders.items():
        decoded = decode(line, encoder, progress.bar(recordings, f"WER {key}"))
        scores[key] = quality.score(references, [d.text for d in decoded])
        progress.say(f"quality  {key}: WER {scores[key].wer:.2f} %")
    return scores
