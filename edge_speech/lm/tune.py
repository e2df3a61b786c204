"""Weights of a language model for a recogniser: the encoder hears each recording once, the search often."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_speech.alignment import import_jiwer
from edge_speech.ctc import CtcConfig
from edge_speech.decoder import open_decoder, text_of
from edge_speech.encoder import FloatArray
from edge_speech.evaluation import error_rates
from edge_speech.manifest import Utterance
from edge_speech.progress import track
from edge_speech.recognizer import Recognizer

LM_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
WORD_BONUSES = (-1.0, 0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Point:
    """Error rates in percent of one pair of weights."""

    lm_weight: float
    word_bonus: float
    wer: float
    cer: float


@dataclass(frozen=True)
class Tuning:
    """All points, best first, beside greedy decoding and a beam without the model; rates in percent."""

    utterances: int
    words: int
    wer_greedy: float
    wer_beam: float
    points: tuple[Point, ...]


def grid_of(
    config: CtcConfig, lm_weights: Sequence[float] = LM_WEIGHTS, word_bonuses: Sequence[float] = WORD_BONUSES
) -> list[CtcConfig]:
    """`config` with every pair of weights, each once."""
    pairs = itertools.product(dict.fromkeys(lm_weights), dict.fromkeys(word_bonuses))
    return [replace(config, lm_weight=weight, word_bonus=bonus) for weight, bonus in pairs]


def tune(
    recognizer: Recognizer, utterances: Sequence[Utterance], grid: Sequence[CtcConfig], quiet: bool = False
) -> Tuning:
    """Try every config of the grid. Memory: all log_probs, 4 bytes for each row and token.

    Equal WERs are ranked by CER, then the smaller weights first. Raises InputError.
    """
    import_jiwer()
    tokens, blank_id = recognizer.tokens, recognizer.blank_id
    for config in grid:
        open_decoder(tokens, config, blank_id)  # finds a weight out of range before the work
    truth = [utterance.text for utterance in utterances]
    log_probs = _log_probs(recognizer, utterances, quiet)

    def rates(config: CtcConfig | None) -> tuple[float, float, int]:
        decoder = open_decoder(tokens, config, blank_id)
        return error_rates(truth, [text_of(decoder, rows) for rows in log_probs])

    wer_greedy, _, words = rates(None)
    wer_beam, *_ = rates(replace(grid[0], lm=None))
    points = [Point(c.lm_weight, c.word_bonus, *rates(c)[:2]) for c in track(grid, "tune", quiet)]
    points.sort(key=lambda p: (p.wer, p.cer, p.lm_weight, abs(p.word_bonus)))
    return Tuning(len(truth), words, wer_greedy, wer_beam, tuple(points))


def _log_probs(recognizer: Recognizer, utterances: Sequence[Utterance], quiet: bool) -> list[FloatArray]:
    stream, kept = recognizer.create_stream(beam_size=1, keep_log_probs=True), []
    for utterance in track(utterances, "encoder", quiet):
        stream.reset()
        stream.accept_waveform(*utterance.read())
        stream.input_finished()
        kept.append(stream.log_probs().copy())
    return kept
