"""CTC decoding over the C++ decoder: log_probs in, tokens out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edge_speech import _core
from edge_speech.bundle_manifest import LM_LEVELS
from edge_speech.errors import InputError
from edge_speech.hotwords import Hotword, as_hotwords
from edge_speech.lm.lexicon import Lexicon
from edge_speech.lm.model import NgramLm


@dataclass(frozen=True)
class CtcToken:
    """A token and the rows [start_row, end_row) on which it was the most probable symbol.

    `confidence` is the mean of its posterior, exp(log_prob), over these rows.
    """

    token: str
    start_row: int
    end_row: int
    confidence: float


@dataclass(frozen=True)
class CtcWord:
    """A word and the rows [start_row, end_row) of its tokens; see edge_speech.recognizer.Word."""

    text: str
    start_row: int
    end_row: int
    confidence: float


@dataclass(frozen=True)
class CtcHotword:
    """A hotword for which the text was boosted, and the rows of its tokens."""

    text: str
    start_row: int
    end_row: int


@dataclass(frozen=True)
class CtcResult:
    """What has been decoded so far; no later row changes `committed_text`, the beginning of `text`."""

    text: str
    tokens: tuple[CtcToken, ...]
    committed_text: str
    hotwords: tuple[CtcHotword, ...] = ()
    words: tuple[CtcWord, ...] = ()


@dataclass(frozen=True)
class CtcHypothesis:
    """One text of the beam.

    `log_prob` is ln of the sum over its alignments that the search kept; `score`, by which hypotheses are
    ranked, is that, the boosts of its hotwords and what the language model adds.
    """

    text: str
    tokens: tuple[CtcToken, ...]
    log_prob: float
    score: float


@dataclass(frozen=True)
class CtcConfig:
    """What a beam search keeps; all thresholds in nats.

    `beam_size` hypotheses after each row, none more than `beam_threshold` below the best; a token may begin
    in a row when it is among its `tokens_per_row` best and not more than `token_threshold` below the best
    symbol. Hypotheses that differ more than `max_undecided_tokens` back are decided for the best one, so that
    memory stays bounded; anything nearer stays open for as long as it is in the beam. Texts with
    `hotwords` rank higher by their boosts.

    With a language model each word adds lm_weight * ln p + word_bonus, and one that the model does not have
    `unknown_score` besides (-math.inf: no such words). Of a word in progress, the most that it may become
    counts, by the model's unigrams. `lm_level` "word" needs tokens that mark word starts with "▁", whatever
    their length; "token" takes each token for a word of a model that was trained on lines of tokens. With a
    `lexicon` there are no words but its own, with a language model or without; a row that leaves no text
    possible is passed over.
    """

    beam_size: int = 8
    beam_threshold: float = 20.0
    tokens_per_row: int = 32
    token_threshold: float = 12.0
    max_undecided_tokens: int = 64
    hotwords: Sequence[str | Hotword] = ()
    lm: NgramLm | None = None
    lm_level: str = "word"
    lexicon: Lexicon | None = None
    lm_weight: float = 0.5
    word_bonus: float = 0.0
    unknown_score: float = -10.0


class _Decoder:
    """Rows in, result out, around a decoder of `_core`."""

    def __init__(self, tokens: Sequence[str], blank_id: int) -> None:
        if not 0 <= blank_id < len(tokens):
            raise InputError(f"blank_id is {blank_id}; allowed: 0 to {len(tokens) - 1}, one of the tokens")
        self._symbols = list(tokens)
        self._decoder = self._open(self._symbols, blank_id)
        self._words = _core.WordGrouping(self._symbols)

    def _open(self, symbols: list[str], blank_id: int) -> _core.CtcDecoder:
        raise NotImplementedError

    def step(self, log_probs: npt.ArrayLike) -> None:
        """Decode more rows, (T, V) natural-log probabilities; T may be 0, -infinity is an impossible symbol.

        Raises InputError on a wrong shape, after `finish`, and on a row that has NaN or +infinity or nothing
        but -infinity: the rows before it are decoded, it and those after it do not count.
        """
        rows = np.ascontiguousarray(log_probs, dtype=np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self._symbols):
            raise InputError(f"log_probs have shape {rows.shape}; allowed: (T, {len(self._symbols)})")
        try:
            self._decoder.step(rows)
        except RuntimeError as error:
            raise InputError(str(error)) from None

    def result(self) -> CtcResult:
        """Tokens and text so far."""
        found = self._decoder.tokens()
        tokens, words = self._named(found), tuple(CtcWord(*word) for word in self._words.group(found))
        committed = join_pieces(t.token for t in tokens[: self._decoder.num_committed])
        return CtcResult(join_pieces(t.token for t in tokens), tokens, committed, words=words)

    def finish(self) -> CtcResult:
        """No more rows until `reset`: the final result, all of it committed. Calling it again is fine."""
        self._decoder.finish()
        return self.result()

    def reset(self) -> None:
        """Ready for a new utterance."""
        self._decoder.reset()

    def _named(self, tokens: Iterable[tuple[int, int, int, float]]) -> tuple[CtcToken, ...]:
        return tuple(CtcToken(self._symbols[i], start, end, c) for i, start, end, c in tokens)


class CtcGreedy(_Decoder):
    """Best-path decoding: the most probable symbol per row, equal neighbours merged, blanks dropped.

    `tokens` has one symbol per column of log_probs, blank included; only the last token can still grow.
    Raises InputError on a bad blank_id.
    """

    def __init__(self, tokens: Sequence[str], blank_id: int = 0) -> None:
        super().__init__(tokens, blank_id)

    def _open(self, symbols: list[str], blank_id: int) -> _core.CtcDecoder:
        return _core.CtcGreedy(len(symbols), blank_id)


class CtcPrefixBeam(_Decoder):
    """CTC prefix beam search: alignments of one text are summed (arXiv:1408.2873, algorithm 1).

    The result, to the last bit, does not depend on how the rows are cut into steps. Raises InputError on a
    bad blank_id or config.
    """

    def __init__(self, tokens: Sequence[str], config: CtcConfig | None = None, blank_id: int = 0) -> None:
        self.config = config or CtcConfig()
        super().__init__(tokens, blank_id)

    def _open(self, symbols: list[str], blank_id: int) -> _core.CtcDecoder:
        config, lm = core_config(self.config), core_lm(self.config)
        try:
            self._beam = _core.CtcPrefixBeam.create(symbols, blank_id, config, lm)
        except ValueError as error:
            raise InputError(str(error)) from None
        for hotword in as_hotwords(self.config.hotwords):
            _add(self._beam, hotword)
        return self._beam

    def add_hotword(self, phrase: str, boost: float | None = None) -> None:
        """Prefer `phrase` in what is said from now on; see Hotword. It stays over `reset`.

        Raises InputError on a phrase that the tokens cannot spell and on a boost out of range.
        """
        hotword = Hotword(phrase, boost)
        _add(self._beam, hotword)

    def remove_hotword(self, phrase: str) -> None:
        """Prefer it no longer; what it did stays. Raises InputError when it is not there."""
        if not self._beam.remove_hotword(phrase):
            raise InputError(f"no hotword {phrase!r} to remove; name one that was added")

    def result(self) -> CtcResult:
        """Tokens and text so far, and the hotwords that acted on them."""
        result = super().result()
        rows = ((text, result.tokens[a], result.tokens[b]) for text, a, b in self._beam.hotwords())
        found = tuple(CtcHotword(text, first.start_row, last.end_row) for text, first, last in rows)
        return replace(result, hotwords=found)

    def n_best(self, count: int | None = None) -> tuple[CtcHypothesis, ...]:
        """The beam, best first; at most `count` hypotheses."""
        found = self._beam.n_best(self.config.beam_size if count is None else max(0, count))
        named = [(self._named(tokens), log_prob, score) for log_prob, score, tokens in found]
        return tuple(CtcHypothesis(join_pieces(t.token for t in n), n, p, s) for n, p, s in named)


def _add(beam: _core.CtcPrefixBeam, hotword: Hotword) -> None:
    try:
        beam.add_hotword(hotword.phrase, hotword.nats)
    except ValueError as error:
        raise InputError(str(error)) from None


def core_config(config: CtcConfig) -> _core.CtcPrefixBeamConfig:
    """The same config for `_core`. Raises InputError on a value out of range."""
    for name, top in (("beam_size", 4096), ("tokens_per_row", 1 << 31), ("max_undecided_tokens", 1 << 31)):
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= top:
            raise InputError(f"{name} is {value!r}; allowed: a whole number from 1 to {top}")
    for name in ("beam_threshold", "token_threshold"):
        value = getattr(config, name)
        if not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{name} is {value!r}; allowed: nats above 0, math.inf for no limit")
    return _core.CtcPrefixBeamConfig(
        beam_size=config.beam_size,
        beam_threshold=config.beam_threshold,
        tokens_per_row=config.tokens_per_row,
        token_threshold=config.token_threshold,
        max_undecided_tokens=config.max_undecided_tokens,
    )


def core_lm(config: CtcConfig | None) -> _core.LmFusion:
    """What `_core` is told about words; nothing without a model and a lexicon. Raises InputError."""
    config = config or CtcConfig()
    lm, lexicon = config.lm, config.lexicon
    if lm is not None and not isinstance(lm, NgramLm):
        raise InputError(f"lm is {lm!r}; allowed: a language model of NgramLm.load, or None")
    if lexicon is not None and not isinstance(lexicon, Lexicon):
        raise InputError(f"lexicon is {lexicon!r}; allowed: a Lexicon of words, or None")
    if config.lm_level not in LM_LEVELS:
        raise InputError(f"lm_level is {config.lm_level!r}; allowed: {', '.join(map(repr, LM_LEVELS))}")
    weights = {name: getattr(config, name) for name in ("lm_weight", "word_bonus", "unknown_score")}
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{name} is {value!r}; allowed: a number")
    of_tokens = config.lm_level == "token"
    words = lexicon.core(lm) if lexicon else lm.lexicon if lm and not of_tokens else None
    return _core.LmFusion(
        model=None if lm is None else lm.core, lexicon=words, of_tokens=of_tokens, **weights
    )


def join_pieces(pieces: Iterable[str]) -> str:
    """Text of SentencePiece pieces: "▁" begins a word; no space at either end."""
    text: str = _core.join_pieces(list(pieces))
    return text
