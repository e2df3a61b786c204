"""lm tune: every point is what the recognizer gives with these weights, and the encoder runs once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_speech.ctc import CtcConfig
from edge_speech.evaluation import evaluate
from edge_speech.features import frontend_from_dict
from edge_speech.lm.tune import LM_WEIGHTS, WORD_BONUSES, grid_of, tune
from edge_speech.manifest import read_manifest
from edge_speech.recognizer import Recognizer
from test_bundle_decoder import ONLY_TWO, add_decoder, only_two
from test_errors import refused, run
from test_optimize_lm import CountingEncoder
from tiny import FRONTEND, TOKENS, speech_like, write_bundle, write_wav


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    add_decoder(write_bundle(folder / "bundle"), CtcConfig(6, lm=only_two()))
    write_bundle(folder / "plain")
    lines = []
    for seed, text in enumerate(["two one", "two", "two four two"]):
        write_wav(folder / f"{seed}.wav", (speech_like(4, seed=seed) * 32767).astype(np.int16))
        lines.append(json.dumps({"audio_filepath": f"{seed}.wav", "text": text}))
    (folder / "dev.jsonl").write_text("\n".join(lines))
    (folder / "two.arpa").write_text(ONLY_TWO)
    return folder


def test_every_point_is_what_the_recognizer_gives(work: Path) -> None:
    recognizer, utterances = Recognizer.load(work / "bundle"), read_manifest(work / "dev.jsonl")
    grid = grid_of(CtcConfig(6, lm=only_two()), (0.0, 1.5), (-2.0, 1.0, 1.0))
    found = tune(recognizer, utterances, grid, quiet=True)
    assert len(found.points) == len(grid) == 4
    for point in found.points:
        recognizer.decoder = CtcConfig(
            6, lm=only_two(), lm_weight=point.lm_weight, word_bonus=point.word_bonus
        )
        scores, _ = evaluate(recognizer, utterances, quiet=True)
        assert (point.wer, point.cer) == pytest.approx((scores.wer, scores.cer))
    for decoder, wer in ((None, found.wer_greedy), (CtcConfig(6), found.wer_beam)):
        recognizer.decoder = decoder
        assert wer == pytest.approx(evaluate(recognizer, utterances, quiet=True)[0].wer)
    rates = [point.wer for point in found.points]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]
    assert (found.utterances, found.words) == (3, 6)


def test_the_encoder_hears_each_recording_once(work: Path) -> None:
    utterances, encoder = read_manifest(work / "dev.jsonl"), CountingEncoder()
    recognizer = Recognizer(encoder, frontend_from_dict(FRONTEND), TOKENS)
    tune(recognizer, utterances, grid_of(CtcConfig(4, lm=only_two())), quiet=True)
    assert encoder.steps == 3 * 4 * 100 // 8


def test_the_command(work: Path) -> None:
    words = "lm", "tune", "plain", "dev.jsonl", "--lm", "two.arpa", "--beam-size", "5"
    done = run(work, *words, "--json", "--plot", "wer.png", "--quiet")
    document = json.loads(done.stdout)
    assert list(document) == [
        "utterances", "words", "wer_greedy", "wer_beam", "points", "beam_size", "options",
    ]  # fmt: skip
    assert len(document["points"]) == len(LM_WEIGHTS) * len(WORD_BONUSES)
    best = document["points"][0]
    assert document["options"] == (
        f"--lm two.arpa --lm-weight {best['lm_weight']:g} --word-bonus {best['word_bonus']:g} --beam-size 5"
    )
    scores = json.loads(
        run(work, "eval", "plain", "dev.jsonl", "--json", *document["options"].split()).stdout
    )
    assert scores["wer"] == best["wer"]
    assert (work / "wer.png").read_bytes().startswith(b"\x89PNG")
    people = run(work, *words, "--lm-weights", "0.5", "--word-bonuses", "0", "1").stdout.decode()
    assert people.splitlines()[-1].startswith("options  --lm two.arpa --lm-weight 0.5 ")
    assert len(people.splitlines()) == 5


def test_the_bundles_own_model_and_beam(work: Path) -> None:
    words = "lm", "tune", "bundle", "dev.jsonl", "--lm-weights", "1", "--word-bonuses", "0", "--json"
    document = json.loads(run(work, *words, "--limit", "2").stdout)
    assert (document["beam_size"], document["utterances"]) == (6, 2)
    assert document["options"].startswith("--lm-weight 1 ")


ODD = {
    "no model": (("plain", "dev.jsonl"), "has no language model; give one with --lm"),
    "missing model": (("plain", "dev.jsonl", "--lm", "nowhere"), "nowhere: cannot be read"),
    "no manifest": (("plain", "nowhere.jsonl", "--lm", "two.arpa"), "no such manifest"),
    "greedy": (("bundle", "dev.jsonl", "--beam-size", "1"), "which is greedy"),
    "weight": (("bundle", "dev.jsonl", "--lm-weights", "0", "-1"), "lm_weight"),
    "limit": (("bundle", "dev.jsonl", "--limit", "0"), "--limit is 0"),
    "plot": (("bundle", "dev.jsonl", "--plot", "nowhere/x.png"), "no such directory"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_arguments(work: Path, kind: str) -> None:
    words, match = ODD[kind]
    refused(work, match, "lm", "tune", *words)


def test_the_picture_has_the_points(work: Path) -> None:
    from matplotlib import image

    from edge_speech.lm.tune import Point, Tuning
    from edge_speech.lm.tune_plot import plot

    points = [Point(w, b, 10 * w + b, 0.0) for w in (0.0, 1.0) for b in (0.0, 2.0, 4.0)]
    plot(Tuning(1, 1, 5.0, 5.0, tuple(points)), work / "points.png")
    pixels = image.imread(work / "points.png")
    assert pixels.shape[0] > 100
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 6  # six cells of six colours
