"""Keyword spotting in training: the loss row by row, phrases as units, keyword-free sources, tones learnt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_speech.ctc import CtcGreedy
from edge_speech.errors import InputError
from edge_speech.features import FbankConfig
from edge_speech.training.augment import rms
from edge_speech.training.checkpoint import load_model
from edge_speech.training.compose import AROUND_DB, surround
from edge_speech.training.data import TrainingSet, evaluation_set
from edge_speech.training.frontends import WaveformConfig
from edge_speech.training.objectives.cross_entropy import (
    EARLIEST_ROW,
    HARDEST_ROWS,
    NEAR_ROWS,
    keywords_of,
    max_pooling_loss,
)
from edge_speech.training.recipe import Augment, Compose, Data, Optimizer, Recipe, Run, Source
from edge_speech.training.tokens import Tokens
from edge_speech.training.train import train
from tiny import write_wav

KEYWORDS = ("view glass", "low")
RATE = 8000


def tone(pitch: float, seed: int) -> np.ndarray:
    """0.2 s of a tone somewhere in 0.9 s of faint noise, not where no keyword can end yet; int16."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, 0.01, round(0.9 * RATE))
    spoken = np.sin(2 * np.pi * pitch * np.arange(1600) / RATE)
    start = rng.integers(2000, len(samples) - len(spoken))
    samples[start : start + len(spoken)] += rng.uniform(0.1, 0.4) * spoken
    return (samples.clip(-1, 1) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two keywords, which are tones, and other tones; these without texts and 2.7 s long."""
    folder = tmp_path_factory.mktemp("tones")
    spoken, other = [], []
    for i in range(12):
        for text, pitch in zip(KEYWORDS, (2500.0, 500.0), strict=True):
            write_wav(folder / f"{text}{i}.wav", tone(pitch, i), RATE)
            spoken.append({"audio_filepath": f"{text}{i}.wav", "text": text})
        parts = [tone(pitch, i) for pitch in (900.0, 1500.0, 3500.0)]
        write_wav(folder / f"other{i}.wav", np.concatenate(parts), RATE)
        other.append({"audio_filepath": f"other{i}.wav"})
    for name, lines in (("spoken", spoken), ("other", other)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def recipe(corpus: Path) -> Recipe:
    spoken, other = (Source("spoken.jsonl"), Source("other.jsonl", keyword_free=True, cut_s=1.0))
    still = Augment((1.0,), noise_probability=0.0, tilt_db=0.0, time_masks=0, frequency_masks=0)
    return Recipe(
        data=Data((spoken, other), str(corpus), (spoken, replace(other, cut_s=0.0)), units="phrases"),
        architecture="tcn",
        objective="cross_entropy",
        model={"d_model": 16, "num_layers": 2, "expansion": 1, "kernel": 3, "dropout": 0.0},
        frontend={"type": "fbank", "sample_rate": RATE, "num_mel_bins": 23},
        augment=still,
        optimizer=Optimizer(steps=80, batch_size=12, warmup_steps=10, learning_rate=1e-2, ema_decay=0.9),
        run=Run(workers=0, evaluate_every=20),
    )


def test_the_loss_is_the_one_summed_row_by_row() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(3, 40, 4).log_softmax(-1)
    log_probs[0, 1] = torch.tensor([-9.0, -9.0, 0.0, -9.0]).log_softmax(-1)  # the best, but too early
    lengths, keywords = torch.tensor([40, 25, 33]), torch.tensor([2, 0, 3])
    losses = []
    for row, (length, keyword) in enumerate(zip(lengths.tolist(), keywords.tolist(), strict=True)):
        frames = log_probs[row, :length]
        place = EARLIEST_ROW + int(frames[EARLIEST_ROW:, keyword].argmax())
        wrong = []
        for t, frame in enumerate(frames):
            near = keyword > 0 and abs(t - place) <= NEAR_ROWS
            wrong.append(-float((frame[0].exp() + near * frame[keyword].exp()).log()))
        hardest = sorted(wrong)[-HARDEST_ROWS:]
        loss = sum(hardest) / len(hardest)
        if keyword:
            later = frames[EARLIEST_ROW:]
            each = functional.cross_entropy(later, torch.full((len(later),), keyword), reduction="none")
            weights = later[:, keyword].exp() ** 2
            loss += float((weights * each).sum() / weights.sum())
        losses.append(loss)
    found = max_pooling_loss(log_probs, lengths, keywords)
    assert float(found) == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_a_recording_of_one_row_has_a_loss() -> None:
    log_probs = torch.tensor([[[0.2, 0.8]]]).log()
    found = max_pooling_loss(log_probs, torch.tensor([1]), torch.tensor([1]))
    assert float(found) == pytest.approx(-np.log(0.8), rel=1e-5)


def test_rows_after_the_end_count_nothing() -> None:
    torch.manual_seed(0)
    log_probs, lengths, keywords = (
        torch.randn(2, 30, 3).log_softmax(-1),
        torch.tensor([20, 20]),
        torch.tensor([1, 0]),
    )
    other = log_probs.clone()
    other[:, 20:] = torch.randn(2, 10, 3).log_softmax(-1) * 9
    assert torch.equal(*(max_pooling_loss(x, lengths, keywords) for x in (log_probs, other)))


def test_a_keyword_of_two_words_is_one_unit_and_reads_as_two() -> None:
    tokens = Tokens.build("phrases", (), KEYWORDS)
    assert tokens.symbols == ("<blk>", "▁view▁glass", "▁low")
    assert (tokens.encode("view glass"), tokens.encode("")) == ([1], [])
    assert (tokens.encode("view"), tokens.encode("low view glass")) == (None, None)
    assert tokens.decode([1]) == "view glass"
    assert Tokens.build("phrases", ["low", "", "view  glass", "low"], ()).symbols[1:] == (
        "▁low",
        "▁view▁glass",
    )
    decoder = CtcGreedy(tokens.symbols)
    decoder.step(np.log([[0.1, 0.8, 0.1]] * 3 + [[0.8, 0.1, 0.1]]))
    result = decoder.finish()
    assert (result.text, [w.text for w in result.words]) == ("view glass", ["view", "glass"])


def test_keyword_free_sources_need_no_text_and_are_cut(recipe: Recipe) -> None:
    only = replace(recipe, data=replace(recipe.data, train=recipe.data.train[1:], vocabulary=KEYWORDS))
    tokens = Tokens.build("phrases", (), KEYWORDS)
    batch = TrainingSet(only, tokens, FbankConfig(RATE, 23))[0]
    assert batch.target_lengths.tolist() == [0] * 12
    assert keywords_of(batch).tolist() == [0] * 12
    assert set(batch.feature_lengths.tolist()) == {100}  # a second
    assert len({tuple(row) for row in batch.features[:, 50].tolist()}) > 8  # not from one place
    texts = [text for _, text in evaluation_set(recipe, tokens, FbankConfig(RATE, 23))]
    assert (texts.count(""), len(texts)) == (12, 36)


def test_a_clip_is_surrounded_by_speech_of_about_its_level_or_by_silence() -> None:
    clip, speech = np.full(1000, 0.1, np.float32), np.full(300, -0.7, np.float32)
    sides, places = set(), set()
    for seed in range(60):
        joined = surround(np.random.default_rng(seed), clip, (100, 500), lambda: speech)
        assert np.array_equal(joined, surround(np.random.default_rng(seed), clip, (100, 500), lambda: speech))
        start = int(np.flatnonzero(joined > 0)[0])
        before, after = joined[:start], joined[start + 1000 :]
        assert np.array_equal(joined[start : start + 1000], clip)
        assert all(100 <= len(side) <= 500 for side in (before, after))
        spoken = [side for side in (before, after) if side.any()]
        assert all(len(side) <= 300 for side in spoken)
        assert all(abs(20 * np.log10(rms(side) / 0.1)) <= AROUND_DB + 1e-3 for side in spoken)
        sides.add((bool(before.any()), bool(after.any())))
        places.add(start)
    assert len(sides) == 4
    assert len(places) > 30


def test_keywords_stand_between_recordings_without_keywords(recipe: Recipe) -> None:
    spoken, other = recipe.data.train
    around = replace(recipe.data, train=(replace(spoken, surround_s=(0.5, 0.8)), replace(other, weight=1e-9)))
    items = TrainingSet(replace(recipe, data=around), Tokens.build("phrases", (), KEYWORDS), WaveformConfig())
    batch = items[0]
    assert torch.equal(batch.features, items[0].features)
    assert len(set(batch.feature_lengths.tolist())) > 8
    assert 190 <= int(batch.feature_lengths.min()) <= int(batch.feature_lengths.max()) <= 250  # of 10 ms
    own, others = (2500.0, 500.0), (900.0, 1500.0, 3500.0)
    heard = 0
    rows = zip(batch.features, batch.feature_lengths.tolist(), keywords_of(batch).tolist(), strict=True)
    for row, length, keyword in rows:
        level = np.abs(np.fft.rfft(row[:length].flatten().numpy()))
        pitches = np.fft.rfftfreq(2 * len(level) - 2, 1 / WaveformConfig.sample_rate)
        loudness = {p: level[np.abs(pitches - p) < 20].max() for p in own + others}
        assert loudness[own[keyword - 1]] > 10 * loudness[own[2 - keyword]]
        heard += max(loudness[p] for p in others) > 10 * loudness[own[2 - keyword]]
    assert 6 <= heard <= 12


def test_surroundings_that_cannot_be_are_refused(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="the lower first"):
        Source("spoken.jsonl", surround_s=(2.0, 0.5))
    with pytest.raises(InputError, match="keyword_free = true"):
        replace(recipe.data, train=(Source("spoken.jsonl", surround_s=(0.5, 2.0)),))


def test_tones_are_learnt_and_heard_once_each_by_the_runtimes_decoder(recipe: Recipe, tmp_path: Path) -> None:
    loaded = load_model(train(recipe, tmp_path / "run", quiet=True))
    assert loaded.metrics["dev_error"] <= 5.0
    decoder = CtcGreedy(loaded.tokens)
    items = evaluation_set(recipe, Tokens("phrases", tuple(loaded.tokens)), FbankConfig(RATE, 23))
    heard = []
    for features, _ in items:
        decoder.reset()
        decoder.step(loaded.model.parallel(features)[0].detach().numpy())
        heard.append(decoder.finish().text)
    assert sum(text == found for (_, text), found in zip(items, heard, strict=True)) >= 33


def test_what_it_cannot_learn_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    joined = replace(recipe.data.train[0], compose=Compose(min_count=2, max_count=2))
    data = replace(recipe.data, train=(joined,), units="words")
    with pytest.raises(InputError, match=r"one keyword or none, one has [2-4] units"):
        train(replace(recipe, data=data), tmp_path / "run", quiet=True)
    with pytest.raises(InputError, match="of a source with keyword_free = true"):
        Source("spoken.jsonl", cut_s=1.0)
