"""Training: data, augmentation, the loop, resumption, checkpoints, the curve. All on the shipped clips."""

from __future__ import annotations

import json
import pickle
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_speech.errors import InputError
from edge_speech.features import FbankConfig, frontend_from_dict
from edge_speech.training import augment, plot
from edge_speech.training.checkpoint import load_model, save_model
from edge_speech.training.compose import compose
from edge_speech.training.data import Example, TrainingSet, collate
from edge_speech.training.recipe import Augment, Compose, Optimizer, Recipe, read_recipe
from edge_speech.training.tokens import Tokens
from edge_speech.training.train import Trainer, train
from tiny_recipe import DIGITS, tiny_recipe


@pytest.fixture
def recipe(digits: Path) -> Recipe:
    recipe = tiny_recipe(digits, steps=6, dropout=0.1)
    return replace(
        recipe,
        optimizer=replace(recipe.optimizer, batch_size=3),
        run=replace(recipe.run, evaluate_every=3),
    )


def training_set(recipe: Recipe) -> TrainingSet:
    return TrainingSet(
        recipe, Tokens.build("words", [], DIGITS), FbankConfig(sample_rate=8000, num_mel_bins=23)
    )


def test_training_lowers_the_loss(recipe: Recipe, tmp_path: Path) -> None:
    how = Optimizer(steps=40, batch_size=3, warmup_steps=5, learning_rate=1e-2)
    longer = replace(recipe, optimizer=how, run=replace(recipe.run, seed=2))
    path = train(longer, tmp_path, quiet=True)
    lines = plot.read_log(tmp_path / "log.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert np.mean([line["loss"] for line in lines[-5:]]) < 0.5 * np.mean(
        [line["loss"] for line in lines[:5]]
    )
    loaded = load_model(path)
    assert loaded.tokens[:2] == ["<blk>", "▁zero"]
    assert loaded.metrics["steps"] == 40
    assert 0 <= loaded.metrics["dev_wer"] <= 200


@pytest.mark.parametrize(
    "frontend",
    [
        {"type": "mfcc", "sample_rate": 8000, "delta_order": 2},
        {"type": "log_mel", "sample_rate": 8000, "num_mel_bins": 40, "fft_size": 256, "log": "natural"},
        {
            "type": "fbank",
            "sample_rate": 8000,
            "extra_features": ["spectral_contrast", "chroma"],
            "contrast_bands": 5,
        },
    ],
    ids=lambda frontend: frontend["type"],
)
def test_every_front_end_trains_and_is_in_the_checkpoint(
    recipe: Recipe, tmp_path: Path, frontend: dict[str, object]
) -> None:
    loaded = load_model(train(replace(recipe, frontend=frontend), tmp_path, quiet=True))
    assert frontend.items() <= loaded.frontend.items()
    assert loaded.model.spec.num_features == frontend_from_dict(loaded.frontend).num_features
    assert np.isfinite(plot.read_log(tmp_path / "log.jsonl")[-1]["loss"])


def test_a_channels_tilt_is_of_the_mel_bins_alone(recipe: Recipe) -> None:
    frontend = FbankConfig(sample_rate=8000, num_mel_bins=23, extra_features=("chroma",))
    tokens = Tokens.build("words", [], DIGITS)
    flat, tilted = (
        TrainingSet(
            replace(recipe, augment=Augment(tilt_db=tilt_db, time_masks=0, frequency_masks=0)),
            tokens,
            frontend,
        )[0].features
        for tilt_db in (0.0, 20.0)
    )
    assert torch.equal(flat[..., 23:], tilted[..., 23:])
    assert (flat[..., :23] - tilted[..., :23]).abs().max() > 0.1


def test_interrupted_run_resumes_to_the_same_weights(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = load_model(train(recipe, tmp_path / "straight", quiet=True)).model.state_dict()
    update = Trainer._update

    def interrupted(self: Trainer, batch: object) -> tuple[float, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return update(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "resumed", quiet=True)
    resumed = load_model(train(recipe, tmp_path / "resumed", quiet=True)).model.state_dict()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_recipe_does_not_resume(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path, quiet=True)
    with pytest.raises(InputError, match="another recipe"):
        train(replace(recipe, run=replace(recipe.run, seed=2)), tmp_path, quiet=True)


def test_batches_depend_on_seed_and_step_only(recipe: Recipe) -> None:
    first, again = training_set(recipe), training_set(recipe)
    again[0]
    assert torch.equal(first[4].features, again[4].features)
    assert not torch.equal(first[4].features[:, :50], first[5].features[:, :50])
    other = training_set(replace(recipe, run=replace(recipe.run, seed=2)))
    assert first[4].features.shape != other[4].features.shape or not torch.equal(
        first[4].features, other[4].features
    )


def test_targets_are_the_words_of_the_recordings(recipe: Recipe) -> None:
    batch, tokens = training_set(recipe)[0], Tokens.build("words", [], DIGITS)
    texts = {json.loads(line)["text"] for line in (Path(recipe.data.root) / "clips.jsonl").open()}
    for numbers in batch.targets.split(batch.target_lengths.tolist()):
        assert tokens.decode(numbers.tolist()) in texts


def test_collate_pads_with_silence() -> None:
    batch = collate([Example(np.ones((2, 3), np.float32), [1]), Example(np.ones((4, 3), np.float32), [2, 2])])
    assert batch.features[0, 2:].unique().tolist() == pytest.approx([np.log(np.finfo(np.float32).eps)])
    assert batch.targets.tolist() == [1, 2, 2]


def test_compose_keeps_order_and_counts_samples() -> None:
    clips = [np.full(100, value, np.float32) for value in (0.1, 0.2)]
    joined = compose(np.random.default_rng(0), clips, 8000, Compose(gap_s=0.1, gapless=0.0, gain_db=0.0))
    sounding = joined[joined > 0]
    assert np.array_equal(sounding, np.concatenate(clips))
    assert len(joined) > 200


def test_noise_is_added_at_the_asked_ratio() -> None:
    rng = np.random.default_rng(0)
    speech = np.sin(np.arange(80000) / 5).astype(np.float32)
    noise = [rng.standard_normal(1000).astype(np.float32)]
    noisy = augment.add_noise(rng, speech, noise, Augment(noise_probability=1.0, noise_snr_db=(10.0, 10.0)))
    snr_db = 10 * np.log10(np.mean(speech**2) / np.mean((noisy - speech) ** 2))
    assert snr_db == pytest.approx(10.0, abs=0.3)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_speed_changes_duration_and_pitch(speed: float) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000).astype(np.float32)
    changed = augment.change_speed(tone, 8000, speed)
    peak_hz = np.abs(np.fft.rfft(changed)).argmax() * 8000 / len(changed)
    assert len(changed) == pytest.approx(8000 / speed, abs=1)
    assert peak_hz == pytest.approx(440 * speed, abs=2)


def test_masks_stay_within_their_widths() -> None:
    features = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    how = Augment(time_masks=1, time_mask_frames=4, frequency_masks=1, frequency_mask_bins=3)
    for seed in range(50):
        changed = augment.mask(np.random.default_rng(seed), features, how) != features
        assert changed.all(axis=1).sum() <= 4
        assert changed.all(axis=0).sum() <= 3
        assert changed.sum() <= 4 * 20 + 3 * 50


def test_units_spell_and_read_back() -> None:
    characters = Tokens.build("characters", ["one two", "ten"], ())
    numbers = characters.encode("two one")
    assert numbers is not None
    assert characters.decode(numbers) == "two one"
    assert characters.encode("six") is None
    assert Tokens.build("words", [], DIGITS).encode("two eleven") is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.stepz=3", "unknown key 'optimizer.stepz'"),
        ("optimizer.steps=many", "must be int, got 'many'"),
        ("data.root=3", "must be str"),
        ("nonsense", "takes key=value"),
        ("data.units=syllables", "there are words, phrases, characters"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate is nan; it must be a finite number"),
        ("optimizer.learning_rate=-1", "optimizer.learning_rate is -1.0; it must be above 0"),
        ("optimizer.ema_decay=1", "ema_decay is 1.0"),
        ("augment.speeds=[]", "augment.speeds is .* each above 0"),
        ("augment.speeds=[1, inf]", "must be a finite number"),
        ("regression.mse_weight=2", "needs objective = 'regression', got 'ctc'"),
        ("model.size=tiny", "it has small"),
        ("frontend.type=ears", "frontend"),
        ("data.root=/nowhere", "no such manifest"),
    ],
)
def test_bad_recipes_are_named(setting: str, message: str, digits: Path, tmp_path: Path) -> None:
    text = (
        'data.train = [{manifest = "clips.jsonl"}]\n[model]\n[frontend]\ntype = "fbank"\nsample_rate = 8000\n'
    )
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        train(read_recipe(tmp_path / "recipe.toml", [f'data.root="{digits}"', setting]), tmp_path / "out")


def test_shipped_recipe_reads() -> None:
    recipe = read_recipe(
        Path(__file__).parent.parent / "recipes" / "digits.toml", ["data.root=/x", "run.seed=7"]
    )
    assert (recipe.data.root, recipe.run.seed) == ("/x", 7)
    assert recipe.data.train[0].compose is not None


@pytest.fixture
def model_file(recipe: Recipe, tmp_path: Path) -> Path:
    return train(replace(recipe, optimizer=Optimizer(steps=1, batch_size=2)), tmp_path / "run", quiet=True)


def test_truncated_model_is_one_line(model_file: Path) -> None:
    whole = model_file.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        model_file.write_bytes(whole[:size])
        with pytest.raises(InputError, match="cannot be read") as caught:
            load_model(model_file)
        assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("hostile-was-run"),))  # type: ignore[return-value]


def test_hostile_model_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"format": "edge-speech-model", "evil": Hostile()}, tmp_path / "zip.pt")
    for name in ("raw.pt", "zip.pt"):
        with pytest.raises(InputError, match="cannot be read"):
            load_model(tmp_path / name)
    assert not (tmp_path / "hostile-was-run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not 'edge-speech-model'"),
        ({"version": 99}, "version 99"),
        ({"tokens": ["<blk>"]}, "1 tokens for 11 outputs"),
        ({"config": {"d_model": 1 << 40}}, "allowed are 1 to"),
        ({"config": {"d_model": 4096, "num_features": 23, "vocab_size": 11}}, "inconsistent: Missing key"),
        ({"frontend": {"type": "fbank", "num_mel_bins": 80}}, "80 bins, the model reads 23"),
    ],
)
def test_inconsistent_model_is_one_line(model_file: Path, change: dict[str, object], message: str) -> None:
    torch.save({**torch.load(model_file, weights_only=True), **change}, model_file)
    with pytest.raises(InputError, match=message) as caught:
        load_model(model_file)
    assert "\n" not in str(caught.value)


def test_full_disk_leaves_no_partial_model(model_file: Path) -> None:
    loaded, before = load_model(model_file), model_file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="cannot write"):
            save_model(model_file, loaded)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert model_file.read_bytes() == before
    assert not list(model_file.parent.glob(".*"))


def test_plot_draws_the_log(model_file: Path) -> None:
    log = model_file.parent / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 2, "lo')  # cut short by an interruption
    plot.plot(plot.read_log(log), model_file.parent / "curve.png")
    assert (model_file.parent / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="no such log"):
        plot.read_log(model_file.parent / "missing.jsonl")
