"""What is measured of the model and of every artifact: parity, word error rate, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_speech import quality
from edge_speech.decoder import open_decoder
from edge_speech.encoder import Encoder
from edge_speech.quality import Score
from edge_speech_tools import parity
from edge_speech_tools.decoding import Line, decode, final_text
from edge_speech_tools.parity import Parity
from edge_speech_tools.passes import PassResult
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import Recording, RecordingSet

PARITY_RECORDINGS = 20
PYTORCH = "pytorch"


@dataclass(frozen=True)
class Quality:
    """Word errors with the bundle's decoder, and with greedy decoding of the same log_probs."""

    score: Score
    greedy: Score


@dataclass(frozen=True)
class Measured:
    """What the passes made, and what was measured of each by `backend/precision`.

    `parity`, `quality` and `latency` hold no entry where nothing was measured; `quality` has one more,
    `pytorch`. `latency` values have the keys of `edge-speech bench`. `compared` names the recordings.
    """

    results: tuple[PassResult, ...]
    parity: Mapping[str, Parity]
    quality: Mapping[str, Quality]
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
) -> dict[str, Quality]:
    """Word errors of each encoder, by key, on all recordings; every encoder hears them once."""
    references = [recording.text for recording in recordings]
    decoder, found = open_decoder(line.tokens, line.decoder), {}
    for key, encoder in encoders.items():
        heard = decode(line, encoder, progress.bar(recordings, f"WER {key}"), keep_log_probs=True)
        texts = [(final_text(decoder, one), one.text) for one in heard]
        final, greedy = (quality.score(references, column) for column in zip(*texts, strict=True))
        found[key] = Quality(final, greedy)
        beside = "" if line.decoder is None else f", greedy {greedy.wer:.2f} %"
        progress.say(f"quality  {key}: WER {final.wer:.2f} %{beside}")
    return found
