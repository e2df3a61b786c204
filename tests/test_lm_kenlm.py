"""Models in KenLM's binary format against KenLM, from Python and from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import edge_speech as es
from test_errors import refused, run
from test_lm import HELD_OUT

GOLDEN = Path(__file__).parent / "golden"
TAKEN = ["kenlm_probing.bin", "kenlm_trie.bin"]
TEXT = """\
turn on the light in the küche
turn the music off
play küche in bad
the küche the light the bad
never heard of it
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    for name in ("kenlm.arpa", *TAKEN, "kenlm_quantised.bin"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    return tmp_path


@pytest.mark.optional
@pytest.mark.parametrize("name", [*TAKEN, "kenlm.arpa"])
def test_scores_are_kenlms(name: str) -> None:
    kenlm = pytest.importorskip("kenlm")
    theirs, ours = kenlm.Model(str(GOLDEN / name)), es.NgramLm.load(GOLDEN / name)
    assert ours.order == theirs.order == 4
    random = np.random.default_rng(3)
    words = [w for w in {*TEXT.split(), "turn", "on", "off", "küche"} if w in ours]
    for line in [*TEXT.splitlines(), *(" ".join(random.choice(words, 12)) for _ in range(300)), ""]:
        expected = np.array([s for s, _, _ in theirs.full_scores(line)]) * math.log(10)
        assert np.abs(np.cumsum(ours.log_probs(line)) - np.cumsum(expected)).max() <= 1e-4


@pytest.mark.parametrize("name", TAKEN)
def test_a_kenlm_file_compiles_and_measures_like_its_arpa_file(folder: Path, name: str) -> None:
    measured = [
        json.loads(run(folder, "lm", "perplexity", lm, "text.txt", "--json").stdout)
        for lm in ("kenlm.arpa", name)
    ]
    assert measured[1] == pytest.approx(measured[0], rel=1e-5)
    done = json.loads(run(folder, "lm", "compile", name, "-o", "lm.bin", "--json").stdout)
    taken, compiled = es.NgramLm.load(folder / name), es.NgramLm.load(folder / "lm.bin")
    assert done["ngrams"] == list(taken.counts) == list(compiled.counts)
    assert taken.counts[0] == es.NgramLm.load(folder / "kenlm.arpa").counts[0]
    assert [compiled.log_probs(line) for line in TEXT.splitlines()] == [
        taken.log_probs(line) for line in TEXT.splitlines()
    ]


def test_what_cannot_be_taken_over_is_refused(folder: Path) -> None:
    (folder / "cut.bin").write_bytes((folder / TAKEN[0]).read_bytes()[:-9])
    refused(folder, "a quantised trie); give the .arpa", "lm", "compile", "kenlm_quantised.bin", "-o", "x")
    refused(folder, "words cut off); give the .arpa", "lm", "perplexity", "cut.bin", "text.txt")


@pytest.mark.parametrize("space", ["  ", "\t", "\n", "\x1c", "\x85", "\u00a0", "\u2003", "\u3000"])
def test_a_sentence_is_split_as_by_str_split(space: str) -> None:
    lm = es.NgramLm.load(GOLDEN / "kenlm.arpa")
    odd = f"{space}turn{space}on 𝄞 küche\u200b{space}the light{space}"
    assert lm.log_probs(odd) == lm.log_probs(" ".join(odd.split()))
    assert lm.score(odd) == pytest.approx(sum(lm.log_probs(odd)))
    assert len(lm.log_probs(odd)) == 7


def test_sentences_of_nothing_known_and_of_nothing() -> None:
    lm = es.NgramLm.load(GOLDEN / TAKEN[0])
    assert len(lm.log_probs("")) == len(lm.log_probs(" \n ")) == 1
    for sentence in HELD_OUT:
        assert all(map(math.isfinite, lm.log_probs(" ".join(sentence))))
