"""Two evaluations beside each other: figures by hand and by scipy's bootstrap, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from edge_speech.comparison import compare
from edge_speech.evaluation import Decoded
from edge_speech.quality import Score, better_fraction, difference_ci95, difference_p_value
from test_errors import refused, run

TEXTS = ["one two three", "four five", "six"]
A, B = ["one two", "four", "six"], ["one two three", "four five", "six six six"]


def details(heard: list[str], folder: str = "x") -> list[Decoded]:
    return [Decoded(f"{folder}/{i}.wav", t, h) for i, (t, h) in enumerate(zip(TEXTS, heard, strict=True))]


def write(path: Path, lines: list[Decoded]) -> None:
    keys = "audio_filepath", "text", "hypothesis"
    path.write_text(json.dumps({"details": [{key: getattr(line, key) for key in keys} for line in lines]}))


def test_figures_by_hand() -> None:
    found = compare(details(A), details(B, "other/folder"))
    assert (found.utterances, found.words) == (3, 6)
    assert (found.wer_a, found.wer_b) == (pytest.approx(200 / 6), pytest.approx(200 / 6))
    assert found.difference == 0
    assert found.p_value == 1
    assert [(c.audio_filepath, c.errors_a, c.errors_b) for c in found.changes] == [
        ("x/2.wav", 0, 2),
        ("x/0.wav", 1, 0),
        ("x/1.wav", 1, 0),
    ]


def test_interval_and_p_value_are_scipys() -> None:
    """scipy resamples pairs too; 1000 draws of ours against 20 000 of its."""
    rng = np.random.default_rng(3)
    words = rng.integers(3, 12, size=80)
    a, b = rng.binomial(words, 0.20), rng.binomial(words, 0.15)
    statistic = lambda e, w, axis=-1: 100 * e.sum(axis=axis) / w.sum(axis=axis)  # noqa: E731
    theirs = bootstrap((b - a, words), statistic, paired=True, n_resamples=20000, method="percentile", rng=0)
    ours = difference_ci95(Score(b, words), Score(a, words))
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.4)
    drawn = theirs.bootstrap_distribution
    assert better_fraction(Score(b, words), Score(a, words)) == pytest.approx((drawn < 0).mean(), abs=0.03)
    p_value = 2 * min((drawn <= 0).mean(), (drawn >= 0).mean())
    assert 0.01 < p_value < 0.5
    assert difference_p_value(Score(b, words), Score(a, words)) == pytest.approx(p_value, abs=0.04)


def test_equal_systems_are_called_different_about_as_often_as_it_says() -> None:
    rng, words = np.random.default_rng(4), np.full(50, 8)
    pairs = [(rng.binomial(8, 0.2, size=50), rng.binomial(8, 0.2, size=50)) for _ in range(60)]
    p_values = [difference_p_value(Score(a, words), Score(b, words)) for a, b in pairs]
    assert 1 <= sum(p < 0.05 for p in p_values) <= 8
    assert 20 <= sum(p < 0.5 for p in p_values) <= 40


def test_a_difference_everywhere_is_certain() -> None:
    words = np.full(30, 5)
    assert difference_p_value(Score(words * 0, words), Score(words * 0 + 1, words)) == pytest.approx(2 / 1001)
    assert better_fraction(Score(words * 0, words), Score(words * 0 + 1, words)) == 1


def test_command(tmp_path: Path) -> None:
    write(tmp_path / "a.json", details(A))
    write(tmp_path / "b.json", details(TEXTS))
    done = run(tmp_path, "compare", "a.json", "b.json", "--json", "--changes", "1")
    document = json.loads(done.stdout)
    assert list(document) == (
        "a b utterances words wer_a wer_b difference difference_ci95 p_value b_better changed changes".split()
    )
    assert (document["wer_a"], document["wer_b"], document["difference"]) == (33.33333, 0, -33.33333)
    assert (document["changed"], len(document["changes"])) == (2, 1)
    shown = run(tmp_path, "compare", "a.json", "b.json").stdout.decode()
    assert "B - A -33.33 points" in shown
    assert "  A heard   one two  (1 errors)" in shown


def refusal(tmp_path: Path, lines: list[Decoded], match: str) -> None:
    write(tmp_path / "a.json", details(A))
    write(tmp_path / "b.json", lines)
    refused(tmp_path, match, "compare", "a.json", "b.json")


def test_other_utterances_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path, details(A)[:2], "A has 3 utterances, B 2")
    other = Decoded("x/1.wav", "Four five", "four")
    refusal(
        tmp_path, [details(A)[0], other], "utterance 1 is 1.wav 'four five' in A and 1.wav 'Four five' in B"
    )
    refusal(tmp_path, details(A)[::-1], "utterance 0 is 0.wav")
    refusal(tmp_path, [], "b.json: holds no 'details'")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "a.json: not JSON"),
        ("[]", "holds no 'details'"),
        ('{"wer": 1}', "make it with `edge-speech eval BUNDLE MANIFEST --json --details`"),
        ('{"details": [{"text": 1}]}', "details[0] must have"),
        ('{"details": [7]}', "details[0] must have"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "a.json").write_text(content)
    refused(tmp_path, match, "compare", "a.json", "a.json")


def test_missing_file_and_odd_number(tmp_path: Path) -> None:
    refused(tmp_path, "No such file", "compare", "nowhere.json", "a.json")
    write(tmp_path / "a.json", details(A))
    refused(tmp_path, "--changes is -1", "compare", "a.json", "a.json", "--changes", "-1")
