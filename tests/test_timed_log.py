"""Tokens of a stream: a tuple to the reader, a few bytes to the machine."""

from __future__ import annotations

import tracemalloc

import pytest

from edge_speech.timed_log import Timed, TimedLog, Token

SYMBOLS = ["<blk>", "▁a", "b"]


def logged(count: int) -> TimedLog[Token]:
    log = TimedLog(Token)
    for i in range(count):
        log.append(SYMBOLS[1 + i % 2], 0.04 * i, 0.04 * i + 0.02, 1 / (1 + i))
    return log


def objects(count: int) -> tuple[Token, ...]:
    return tuple(Token(SYMBOLS[1 + i % 2], 0.04 * i, 0.04 * i + 0.02, 1 / (1 + i)) for i in range(count))


@pytest.mark.parametrize("settled", [0, 1, 4, 7])
def test_it_reads_as_a_tuple(settled: int) -> None:
    tokens, expected = Timed(logged(settled), list(objects(7)[settled:])), objects(7)
    assert tokens == expected
    assert expected == tokens
    assert tokens != expected[:6]
    assert tokens != list(expected)
    assert len(tokens) == 7
    assert list(tokens) == list(expected)
    assert [tokens[i] for i in range(-7, 7)] == [expected[i] for i in range(-7, 7)]
    for cut in (slice(2, 5), slice(None, None, -2), slice(-3, None), slice(9, 12)):
        assert tokens[cut] == expected[cut]
    assert (repr(tokens), hash(tokens)) == (repr(expected), hash(expected))
    with pytest.raises(IndexError):
        tokens[7]


def test_it_stays_as_it_was_when_the_log_grows() -> None:
    log = logged(3)
    before = Timed(log, list(objects(4)[3:]))
    log.append("b", 9.0, 9.5, 0.5)
    assert before == objects(4)
    assert Timed(log, [])[3] == Token("b", 9.0, 9.5, 0.5)


def test_a_token_takes_few_bytes() -> None:
    tracemalloc.start()
    log = logged(20_000)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log) == 20_000
    assert used < 40 * 20_000
