"""A bundle as a detector of keywords: each of its tokens is one, and fires where its posterior peaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_speech.ctc import join_pieces
from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.manifest import Utterance
from edge_speech.metrics import OperatingPoint, false_rejects_at
from edge_speech.progress import track
from edge_speech.recognizer import Recognizer, Stream

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spotted:
    """Scores in one set of recordings: ln p / (1 - p) of a keyword's posterior p.

    `best` (N, K) is the highest of every keyword in each recording, `peaks` those of every peak by keyword.
    `texts` is what was said, `decoded` the keywords that the bundle's own decoder wrote.
    """

    best: Array
    peaks: tuple[Array, ...]
    texts: tuple[str, ...]
    decoded: tuple[tuple[str, ...], ...]
    audio_s: float


@dataclass(frozen=True)
class Detection:
    """A keyword's operating point, or that of all with one threshold, rates as fractions.

    `count` recordings have the keyword; `confused` is the share of the recordings of other keywords in which
    it fires, or of all recordings in which another one does.
    """

    keyword: str
    count: int
    point: OperatingPoint
    confused: float


def keywords_of(recognizer: Recognizer) -> list[str]:
    """The text of every token but the blank."""
    return [join_pieces([t]) for i, t in enumerate(recognizer.tokens) if i != recognizer.blank_id]


def spot(
    recognizer: Recognizer, utterances: Sequence[Utterance], refractory_s: float = 1.0, quiet: bool = False
) -> Spotted:
    """Run the recordings through a stream. No two peaks of a keyword are nearer than `refractory_s`.

    Raises InputError.
    """
    row_s = recognizer.encoder.spec.subsampling_factor * recognizer.frontend.frame_shift_ms / 1000
    rows = max(1, round(refractory_s / row_s))
    stream, keywords = recognizer.create_stream(keep_log_probs=True), keywords_of(recognizer)
    best, decoded, audio_s = [], [], 0.0
    found: list[list[Array]] = [[] for _ in keywords]
    for utterance in track(utterances, "keywords", quiet):
        scores = _hear(stream, utterance, recognizer.blank_id)
        best.append(scores.max(axis=0, initial=-np.inf))
        decoded.append(tuple(join_pieces([token.token]) for token in stream.result.tokens))
        audio_s += stream.audio_s
        for column, of_keyword in zip(scores.T, found, strict=True):
            of_keyword.append(peaks(column, rows))
    joined = tuple(np.concatenate(one) for one in found)
    return Spotted(np.array(best), joined, tuple(u.text for u in utterances), tuple(decoded), audio_s)


def _hear(stream: Stream, utterance: Utterance, blank_id: int) -> Array:
    """Scores (T, K) of a recording."""
    stream.reset()
    stream.accept_waveform(*utterance.read())
    stream.input_finished()
    return np.delete(log_odds(stream.log_probs()), blank_id, axis=1)


def log_odds(log_probs: FloatArray) -> Array:
    """log_probs (T, V) → ln p / (1 - p) (T, V). 1 - p is summed from the others: near p = 1 it is exact."""
    rows = np.asarray(log_probs, np.float64)
    others = [np.logaddexp.reduce(np.delete(rows, v, axis=1), axis=1) for v in range(rows.shape[1])]
    odds: Array = rows - np.stack(others, axis=1)
    return odds


def peaks(scores: Array, rows: int) -> Array:
    """The highest of scores (T,), then the highest at least `rows` from every one taken, and so on."""
    left, taken = scores.copy(), []
    while left.max(initial=-np.inf) > -np.inf:
        at = int(left.argmax())
        taken.append(left[at])
        left[max(0, at - rows + 1) : at + rows] = -np.inf
    return np.array(taken, np.float64)


def detections(
    keywords: Sequence[str], said: Spotted, other: Spotted, false_accepts_per_hour: float
) -> list[Detection]:
    """Each keyword with a threshold of its own, then "all" with one for all, each at the rate.

    Raises InputError, see `places`.
    """
    truth = places(keywords, said.texts)
    found = []
    for k, keyword in enumerate(keywords):
        own, rest = said.best[truth == k, k], said.best[truth != k, k]
        point = false_rejects_at(own, other.peaks[k], other.audio_s, false_accepts_per_hour)
        found.append(Detection(keyword, own.size, point, _share(rest > point.threshold)))
    own = said.best[np.arange(len(truth)), truth]
    point = false_rejects_at(own, np.concatenate(other.peaks), other.audio_s, false_accepts_per_hour)
    wrong = np.where(np.arange(len(keywords)) == truth[:, None], -np.inf, said.best).max(axis=1)
    return [*found, Detection("all", len(truth), point, _share(wrong > point.threshold))]


def trade_off(keywords: Sequence[str], said: Spotted, other: Spotted) -> dict[str, tuple[Array, Array]]:
    """False accepts per hour and the share of false rejects at every threshold, of each keyword and all."""
    truth = places(keywords, said.texts)
    curves = {
        keyword: _curve(said.best[truth == k, k], other.peaks[k], other.audio_s)
        for k, keyword in enumerate(keywords)
    }
    own = said.best[np.arange(len(truth)), truth]
    return curves | {"all": _curve(own, np.concatenate(other.peaks), other.audio_s)}


def _curve(own: Array, peaks: Array, audio_s: float) -> tuple[Array, Array]:
    descending = np.sort(peaks)[::-1]
    rejects = np.searchsorted(np.sort(own), descending, side="right") / own.size
    return np.arange(descending.size) * 3600 / audio_s, rejects


def places(keywords: Sequence[str], texts: Sequence[str]) -> npt.NDArray[np.intp]:
    """Of each text, which keyword it is. Raises InputError on another text, and on a keyword without any."""
    if odd := [text for text in texts if text not in keywords]:
        raise InputError(f"{odd[0][:60]!r} is no keyword; this bundle has {', '.join(keywords[:20])}")
    if unsaid := [keyword for keyword in keywords if keyword not in texts]:
        raise InputError(f"no recording says {unsaid[0]!r}; the manifest needs one of every keyword")
    place = {keyword: k for k, keyword in enumerate(keywords)}
    return np.array([place[text] for text in texts], np.intp)


def _share(happened: npt.NDArray[np.bool_]) -> float:
    return float(happened.mean()) if happened.size else 0.0
