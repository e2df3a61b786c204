"""What is measured of the model and of every artifact: parity, word error rate, latency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_speech import quality
from edge_speech.decoder import open_decoder
from edge_speech.encoder import Encoder
from edge_speech.quality import Score
from edge_speech_tools import parity
from edge_speech_tools.decoding import Decoded, Line, decode, decode_reference, final_text
from edge_speech_tools.drift import Drift
from edge_speech_tools.parity import Parity
from edge_speech_tools.passes import PassResult
from edge_speech_tools.progress import Progress
from edge_speech_tools.recordings import Recording, RecordingSet
from edge_speech_tools.reference import TorchEncoder
from edge_speech_tools.sherpa_text import TextCheck

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

    `parity`, `quality`, `latency` and `drift` hold no entry where nothing was measured; `quality` has one
    more, `pytorch`. `latency` values have the keys of `edge-speech bench`. `compared` names the recordings.
    `texts` holds those of artifacts that another program ran.
    `sensitivity` is what quantising each layer alone costs.
    """

    results: tuple[PassResult, ...]
    parity: Mapping[str, Parity]
    quality: Mapping[str, Quality]
    latency: Mapping[str, dict[str, Any]]
    compared: str
    drift: Mapping[str, Drift] = field(default_factory=dict)
    sensitivity: Sequence[Mapping[str, Any]] = ()
    texts: Mapping[str, TextCheck] = field(default_factory=dict)


def measure_reference(
    line: Line, reference: TorchEncoder, compared: RecordingSet, progress: Progress
) -> list[Decoded]:
    """What the artifacts are compared with: the first recordings by PyTorch, log_probs kept."""
    recordings = compared.recordings[:PARITY_RECORDINGS]
    return list(decode_reference(line, reference, progress.bar(recordings, f"parity {PYTORCH}")))


def measure_parity(
    line: Line, engine: Encoder, wanted: Sequence[Decoded], compared: RecordingSet, progress: Progress
) -> Parity:
    """One artifact against what PyTorch gives, over whole recordings."""
    recordings = progress.bar(compared.recordings[:PARITY_RECORDINGS], "parity")
    return parity.compare(wanted, decode(line, engine, recordings, keep_log_probs=True))


def parity_line(key: str, p: Parity) -> str:
    """One measurement in words."""
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
        heard = _heard(line, encoder, progress.bar(recordings, f"WER {key}"))
        texts = [(final_text(decoder, one), one.text) for one in heard]
        final, greedy = (quality.score(references, column) for column in zip(*texts, strict=True))
        found[key] = Quality(final, greedy)
        beside = "" if line.decoder is None else f", greedy {greedy.wer:.2f} %"
        progress.say(f"quality  {key}: WER {final.wer:.2f} %{beside}")
    return found


def _heard(line: Line, encoder: Encoder, recordings: Iterable[Recording]) -> Iterable[Decoded]:
    if isinstance(encoder, TorchEncoder):
        return decode_reference(line, encoder, recordings)
    return decode(line, encoder, recordings, keep_log_probs=True)
