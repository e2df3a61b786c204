"""CTC prefix beam search against sums over all alignments, against itself in pieces, and at its limits."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_speech.ctc import CtcConfig, CtcGreedy, CtcPrefixBeam
from edge_speech.errors import InputError
from tiny import log_softmax

TOKENS = ["<blk>", "▁a", "b", "▁c", "d", "e", "f"]
SEED = st.integers(0, 2**32 - 1)
EXACT = CtcConfig(beam_size=4096, beam_threshold=math.inf, tokens_per_row=99, token_threshold=math.inf)


def random_rows(rows: int, vocab: int, seed: int, scale: float = 2.0) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(0, scale, (rows, vocab)).astype(np.float32))


def peaky_rows(rows: int, vocab: int, seed: int) -> np.ndarray:
    """Mostly blank, tokens of one to three rows, confusions."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1, (rows, vocab)).astype(np.float32)
    logits[:, 0] += 6
    for row in range(2, rows - 3, 6):
        logits[row : row + rng.integers(1, 4), rng.integers(1, vocab)] += rng.uniform(8, 14)
        logits[row, rng.integers(1, vocab)] += rng.uniform(6, 12)
    return log_softmax(logits)


def all_alignments(log_probs: np.ndarray, blank_id: int) -> dict[tuple[int, ...], float]:
    """ln p of every token sequence: each of the V^T paths collapsed and summed."""
    mass: dict[tuple[int, ...], list[float]] = defaultdict(list)
    rows = log_probs.astype(np.float64)
    for path in itertools.product(range(rows.shape[1]), repeat=len(rows)):
        sequence = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id)
        mass[sequence].append(sum(rows[t, symbol] for t, symbol in enumerate(path)))
    return {sequence: float(np.logaddexp.reduce(terms)) for sequence, terms in mass.items()}


def best_path(log_probs: np.ndarray, sequence: tuple[int, ...], blank_id: int) -> tuple[float, list]:
    """The most probable alignment of a sequence, found among all of them: rows of each token."""
    rows, best = log_probs.astype(np.float64), (-math.inf, [])
    for path in itertools.product(range(rows.shape[1]), repeat=len(rows)):
        groups, start = [], 0
        for symbol, group in itertools.groupby(path):
            end = start + len(list(group))
            if symbol != blank_id:
                groups.append((symbol, start, end))
            start = end
        score = sum(rows[t, symbol] for t, symbol in enumerate(path))
        if tuple(g[0] for g in groups) == sequence and score > best[0]:
            best = (score, groups)
    return best


def ids(hypothesis) -> tuple[int, ...]:
    return tuple(TOKENS.index(t.token) for t in hypothesis.tokens)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 2**32 - 1), st.floats(0.1, 6))
def test_equals_the_sum_over_all_alignments(
    rows: int, vocab: int, blank_id: int, seed: int, scale: float
) -> None:
    blank_id %= vocab
    log_probs = random_rows(rows, vocab, seed, scale)
    decoder = CtcPrefixBeam(TOKENS[:vocab], EXACT, blank_id)
    decoder.step(log_probs)
    expected = all_alignments(log_probs, blank_id)
    found = {ids(h): h.log_prob for h in decoder.n_best()}
    assert found.keys() == expected.keys()
    assert [found[s] for s in expected] == pytest.approx(list(expected.values()), abs=1e-9)
    scores = [h.log_prob for h in decoder.n_best()]
    assert scores == sorted(scores, reverse=True)
    assert decoder.result().tokens == decoder.n_best(1)[0].tokens


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_times_and_confidence_are_those_of_the_best_alignment(rows: int, vocab: int, seed: int) -> None:
    log_probs = random_rows(rows, vocab, seed)
    decoder = CtcPrefixBeam(TOKENS[:vocab], EXACT)
    decoder.step(log_probs)
    for hypothesis in decoder.n_best(5):
        _, groups = best_path(log_probs, ids(hypothesis), 0)
        assert [(TOKENS.index(t.token), t.start_row, t.end_row) for t in hypothesis.tokens] == groups
        posteriors = [np.exp(log_probs[a:b, s].astype(np.float64)).mean() for s, a, b in groups]
        assert [t.confidence for t in hypothesis.tokens] == pytest.approx(posteriors, abs=1e-6)


def textbook_beam(log_probs: np.ndarray, beam_size: int) -> dict[tuple[int, ...], float]:
    """Algorithm 1 of arXiv:1408.2873 over dictionaries: every extension, then the best beam_size."""
    beam = {(): (0.0, -np.inf)}
    for row in log_probs.astype(np.float64):
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-np.inf, -np.inf])
        for prefix, (blank, nonblank) in beam.items():
            total = np.logaddexp(blank, nonblank)
            grown[prefix][0] = np.logaddexp(grown[prefix][0], total + row[0])
            for symbol in range(1, len(row)):
                again = bool(prefix) and prefix[-1] == symbol
                if again:
                    grown[prefix][1] = np.logaddexp(grown[prefix][1], nonblank + row[symbol])
                longer = grown[(*prefix, symbol)]
                longer[1] = np.logaddexp(longer[1], (blank if again else total) + row[symbol])
        ranked = sorted(grown.items(), key=lambda item: -np.logaddexp(*item[1]))
        beam = {p: (b, n) for p, (b, n) in ranked[:beam_size] if np.logaddexp(b, n) > -np.inf}
    return {prefix: float(np.logaddexp(*masses)) for prefix, masses in beam.items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(2, 7), st.integers(1, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_equals_the_textbook_at_any_beam_size(
    rows: int, vocab: int, beam_size: int, seed: int, peaky: bool
) -> None:
    log_probs = (peaky_rows if peaky else random_rows)(rows, vocab, seed)
    config = CtcConfig(beam_size, beam_threshold=math.inf, tokens_per_row=99, token_threshold=math.inf)
    decoder = CtcPrefixBeam(TOKENS[:vocab], config)
    decoder.step(log_probs)
    expected = textbook_beam(log_probs, beam_size)
    found = {ids(h): h.log_prob for h in decoder.n_best()}
    assert found.keys() == expected.keys()
    assert [found[s] for s in expected] == pytest.approx(list(expected.values()), abs=1e-8)


def test_token_and_beam_pruning_leave_peaky_results_alone() -> None:
    for seed in range(20):
        log_probs = peaky_rows(120, 7, seed)
        pruned, full = CtcPrefixBeam(TOKENS), CtcPrefixBeam(TOKENS, EXACT_BUT_FOR_THE_BEAM)
        pruned.step(log_probs)
        full.step(log_probs)
        assert pruned.result().text == full.result().text
        assert pruned.n_best(1)[0].log_prob == pytest.approx(full.n_best(1)[0].log_prob, abs=1e-3)


EXACT_BUT_FOR_THE_BEAM = CtcConfig(8, math.inf, 99, math.inf)


@pytest.mark.parametrize(
    ("config", "most"), [(CtcConfig(tokens_per_row=1), 3), (CtcConfig(token_threshold=1e-6), 3)]
)
def test_only_the_best_token_of_a_row_may_begin(config: CtcConfig, most: int) -> None:
    rows = np.log(np.array([[0.1, 0.5, 0.4], [0.8, 0.15, 0.05]], np.float32))
    decoder = CtcPrefixBeam(TOKENS[:3], config)
    decoder.step(rows)
    assert {h.text for h in decoder.n_best()} <= {"", "a", "b", "ab", "b a"}
    assert not any(t.token == "b" for h in decoder.n_best() for t in h.tokens)
    assert len(decoder.n_best()) <= most


def test_beam_threshold_drops_what_is_far_below() -> None:
    rows = np.log(np.array([[0.01, 0.96, 0.03]], np.float32))
    decoder = CtcPrefixBeam(TOKENS[:3], CtcConfig(beam_threshold=4.0))
    decoder.step(rows)
    assert [h.text for h in decoder.n_best()] == ["a", "b"]


@settings(max_examples=100, deadline=None)
@given(
    st.builds(random_rows, st.integers(0, 200), st.just(7), SEED)
    | st.builds(peaky_rows, st.integers(0, 200), st.just(7), SEED),
    st.lists(st.integers(0, 200), max_size=30),
    st.integers(1, 12),
    st.sampled_from([1, 2, 5, 256]),
)
def test_any_pieces_give_the_same_bits(
    log_probs: np.ndarray, cuts: list[int], beam_size: int, undecided: int
) -> None:
    config = CtcConfig(beam_size, max_undecided_tokens=undecided)
    whole, cut = CtcPrefixBeam(TOKENS, config), CtcPrefixBeam(TOKENS, config)
    whole.step(log_probs)
    committed, seen = "", []
    for piece in np.split(log_probs, sorted(min(c, len(log_probs)) for c in cuts)):
        cut.step(piece)
        assert cut.result().committed_text.startswith(committed)
        committed = cut.result().committed_text
        seen.append(committed)
    assert cut.n_best() == whole.n_best()
    assert cut.result() == whole.result()
    final = cut.finish()
    assert all(final.text.startswith(text) for text in seen)
    assert final.committed_text == final.text
    for hypothesis in whole.n_best():
        bounds = [row for t in hypothesis.tokens for row in (t.start_row, t.end_row)]
        assert bounds == sorted(bounds)
    whole.reset()
    whole.step(log_probs)
    assert whole.n_best() == cut.n_best()


def test_the_beam_beats_the_best_path_where_they_differ() -> None:
    """Two rows: the best path is blank, blank (0.36), but all of a's alignments sum to 0.64."""
    rows = np.log(np.array([[0.6, 0.4], [0.6, 0.4]], np.float32))
    greedy, beam = CtcGreedy(TOKENS[:2]), CtcPrefixBeam(TOKENS[:2])
    greedy.step(rows)
    beam.step(rows)
    assert (greedy.finish().text, beam.finish().text) == ("", "a")
    assert math.exp(beam.n_best(1)[0].log_prob) == pytest.approx(0.64)


def test_what_all_hypotheses_share_is_committed() -> None:
    decoder = CtcPrefixBeam(TOKENS)
    sure = np.full((40, 7), -30, np.float32)
    sure[:, 0] = 0
    sure[5:7, 1], sure[5:7, 0] = 0, -30
    decoder.step(log_softmax(sure))
    assert decoder.result().committed_text == "a"
    decoder.step(np.log(np.array([[0.4, 0.01, 0.3, 0.01, 0.26, 0.01, 0.01]], np.float32)))
    assert decoder.result().committed_text == "a"
    assert {h.text for h in decoder.n_best(3)} == {"a", "ab", "ad"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, "no symbol"])
def test_a_broken_row_is_an_error_and_the_rows_before_it_count(bad: object) -> None:
    rows = peaky_rows(30, 7, 1)
    decoder, before = CtcPrefixBeam(TOKENS), CtcPrefixBeam(TOKENS)
    before.step(rows[:17])
    rows[17, :] = -np.inf if isinstance(bad, str) else rows[17, :]
    rows[17, 2] = -np.inf if isinstance(bad, str) else bad
    with pytest.raises(InputError, match="output row 17"):
        decoder.step(rows)
    assert decoder.n_best() == before.n_best()
    assert decoder.result() == before.result()


def test_impossible_symbols_are_never_said() -> None:
    eye = np.where(np.eye(7, dtype=bool), 0, -np.inf).astype(np.float32)
    decoder = CtcPrefixBeam(TOKENS)
    decoder.step(eye[[1, 1, 0, 1, 2, 2]])
    assert [(h.text, h.log_prob) for h in decoder.n_best()] == [("a ab", 0.0)]
    assert [(t.start_row, t.end_row) for t in decoder.result().tokens] == [(0, 2), (3, 4), (4, 6)]


def test_empty_steps_and_a_vocabulary_of_blank_alone() -> None:
    decoder = CtcPrefixBeam(TOKENS)
    decoder.step(np.zeros((0, 7), np.float32))
    assert (decoder.finish().text, decoder.n_best()[0].log_prob) == ("", 0.0)
    silent = CtcPrefixBeam(["<blk>"])
    silent.step(np.zeros((50, 1), np.float32))
    assert silent.finish().tokens == ()


def test_misuse_is_one_clear_line() -> None:
    decoder = CtcPrefixBeam(TOKENS)
    for shape in [(3, 6), (7,), (1, 1, 7)]:
        with pytest.raises(InputError, match=r"\(T, 7\)"):
            decoder.step(np.zeros(shape, np.float32))
    decoder.finish()
    with pytest.raises(InputError, match=r"reset\(\)"):
        decoder.step(np.zeros((1, 7), np.float32))
    decoder.reset()
    decoder.step(np.zeros((1, 7), np.float32))
    with pytest.raises(InputError, match="blank_id"):
        CtcPrefixBeam(TOKENS, blank_id=7)
    with pytest.raises(InputError, match="blank_id"):
        CtcPrefixBeam([])


@pytest.mark.parametrize(
    ("field", "value"),
    [(f, v) for f in ("beam_size", "tokens_per_row", "max_undecided_tokens") for v in (0, -1, 1.5, True, "8")]
    + [(f, v) for f in ("beam_threshold", "token_threshold") for v in (0, -1.0, math.nan, "x")]
    + [("beam_size", 4097)],
)
def test_a_config_out_of_range_names_its_field(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        CtcPrefixBeam(TOKENS, CtcConfig(**{field: value}))  # type: ignore[arg-type]


def test_hypotheses_that_never_meet_are_decided() -> None:
    """Two first tokens equally probable, then certainty: nothing but the limit would settle the first."""
    rows = np.full((4000, 7), -np.inf, np.float32)
    rows[0, [1, 2]] = math.log(0.5)
    rows[1::2, 0] = 0
    rows[2::2, 3] = 0
    decoder = CtcPrefixBeam(TOKENS, CtcConfig(max_undecided_tokens=100))
    decoder.step(rows[:200])
    assert len(decoder.n_best()) == 2
    assert decoder.result().committed_text == ""
    decoder.step(rows[200:])
    assert len(decoder.n_best()) == 1
    assert decoder.result().text == decoder.result().committed_text == "a" + " c" * 1999
