"""Numbers of recordings: the loss against torch's, a level that is learnt, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_speech.cli import main
from edge_speech.errors import InputError
from edge_speech.training.checkpoint import load_model
from edge_speech.training.recipe import Augment, Compose, Data, Optimizer, Recipe, Regression, Run, Source
from edge_speech.training.train import Trainer, train
from tiny import write_wav

RATE = 8000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of different length; the pitch and the level of each in its line, none has a text."""
    folder, rng, lines = tmp_path_factory.mktemp("tones"), np.random.default_rng(0), []
    for i in range(30):
        octave, level = rng.uniform(-2, 2), rng.uniform(-3, -1)
        t = np.arange(int(rng.uniform(0.3, 0.5) * RATE)) / RATE
        samples = np.exp(level) * np.sin(2 * np.pi * 700 * 2**octave * t)
        write_wav(folder / f"{i}.wav", (samples * 32767).astype(np.int16), RATE)
        lines.append({"audio_filepath": f"{i}.wav", "octave": octave, "level": level})
    (folder / "tones.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "odd.jsonl").write_text(json.dumps({"audio_filepath": "0.wav", "octave": "high", "level": 1}))
    return folder


@pytest.fixture
def recipe(corpus: Path) -> Recipe:
    source = Source("tones.jsonl")
    still = Augment((1.0,), noise_probability=0.0, gain_db=0.0, tilt_db=0.0, time_masks=0, frequency_masks=0)
    return Recipe(
        data=Data((source,), str(corpus), (source,), units="numbers", vocabulary=("octave", "level")),
        architecture="tcn",
        objective="regression",
        model={"d_model": 16, "num_layers": 1, "kernel": 2, "dropout": 0.0, "head": "linear"},
        frontend={"type": "fbank", "sample_rate": RATE, "num_mel_bins": 23},
        augment=still,
        regression=Regression(mse_weight=0.7, l1_weight=0.2),
        optimizer=Optimizer(steps=80, batch_size=10, warmup_steps=10, learning_rate=2e-2, ema_decay=0.9),
        run=Run(workers=0, evaluate_every=80),
    )


def test_the_loss_is_torchs_over_the_means_of_the_rows(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    batch, model = trainer.training_set[0], trainer.model.eval()
    assert len(set(batch.feature_lengths.tolist())) > 3
    with torch.no_grad():
        found = trainer.objective(model, batch)
        means = []
        for features, length in zip(batch.features, batch.feature_lengths.tolist(), strict=True):
            means.append(model.parallel(features[None, :length])[0].mean(dim=0))
    wanted = batch.targets.view(10, 2)
    expected = 0.7 * functional.mse_loss(torch.stack(means), wanted)
    expected += 0.2 * functional.l1_loss(torch.stack(means), wanted)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_pitch_and_level_are_learnt_and_no_bundle_is_made(
    recipe: Recipe, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = train(recipe, tmp_path / "run", quiet=True)
    loaded = load_model(path)
    assert loaded.tokens == ["octave", "level"]
    lines = [json.loads(line) for line in (corpus / "tones.jsonl").read_text().splitlines()]
    truth = np.array([[line["octave"], line["level"]] for line in lines])
    of_the_mean = np.abs(truth - truth.mean(axis=0)).mean()
    assert loaded.metrics["dev_mae"] < 0.4 * of_the_mean
    assert (tmp_path / "run" / "curve.png").exists()
    command = ["optimize", str(path), "--target", "linux-x86_64", "-o", str(tmp_path / "bundle")]
    assert main([*command, "--eval", str(corpus / "tones.jsonl"), "--quiet"]) == 2
    assert main([*command, "--quiet"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("with model.head = 'log_softmax'")
    assert not (tmp_path / "bundle").exists()


def test_what_does_not_fit_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    def refused(changed: Recipe, match: str) -> None:
        with pytest.raises(InputError, match=match):
            train(changed, tmp_path / "run", quiet=True)

    data = recipe.data
    odd, joined = replace(data.train[0], manifest="odd.jsonl"), replace(data.train[0], compose=Compose(2, 2))
    refused(replace(recipe, data=replace(data, train=(odd,))), "has 'octave' 'high'; it must be a number")
    refused(replace(recipe, data=replace(data, train=(joined,))), "learns from single recordings")
    refused(replace(recipe, data=replace(data, vocabulary=())), "needs data.vocabulary: fields")
    refused(replace(recipe, model={**recipe.model, "head": "log_softmax"}), "'numbers' and 'log_softmax'")
    refused(replace(recipe, model={**recipe.model, "head": "relu"}), "allowed are log_softmax, linear")
    with pytest.raises(InputError, match="one must be above 0"):
        Regression(0.0, 0.0)
