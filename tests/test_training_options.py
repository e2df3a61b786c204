"""What a recipe can choose in training: schedules, accumulation, stopping, precision, batches, units."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from edge_speech.errors import InputError
from edge_speech.features import FbankConfig
from edge_speech.training.bucketing import batch_of_seconds, cut_by_length
from edge_speech.training.checkpoint import load_model
from edge_speech.training.data import TrainingSet
from edge_speech.training.models.conformer import Convolution
from edge_speech.training.optimization import Schedule, adamw
from edge_speech.training.recipe import Optimizer, Recipe, read_recipe
from edge_speech.training.run_log import _revision
from edge_speech.training.tokens import Tokens
from edge_speech.training.train import Trainer, train
from tiny_recipe import DIGITS, tiny_recipe

# A depthwise convolution in float16 takes minutes on some processors.
NO_DEPTHWISE = "transformer"


@pytest.fixture
def recipe(digits: Path) -> Recipe:
    return tiny_recipe(digits)


def with_optimizer(recipe: Recipe, **settings: Any) -> Recipe:
    return replace(recipe, optimizer=replace(recipe.optimizer, **settings))


def rates(how: Optimizer, error_rates: list[float]) -> list[float]:
    """The learning rate of every step, evaluated after each."""
    optimizer = adamw(torch.nn.Linear(2, 2), how)
    schedule, found = Schedule(optimizer, how), []
    for error_rate in error_rates:
        found.append(schedule.learning_rate)
        optimizer.step()
        schedule.stepped()
        schedule.evaluated(error_rate)
    return [*found, schedule.learning_rate]


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
@pytest.mark.parametrize("warmup_steps", [0, 4])
def test_schedules_rise_in_the_warm_up_and_fall_to_zero(schedule: Any, warmup_steps: int) -> None:
    how = Optimizer(steps=20, learning_rate=0.5, schedule=schedule, warmup_steps=warmup_steps)
    found = rates(how, [1.0] * 20)
    assert max(found) == pytest.approx(0.5, rel=0.01)
    assert found.index(max(found)) == warmup_steps
    assert found[warmup_steps:] == sorted(found[warmup_steps:], reverse=True)
    assert found[-1] == pytest.approx(0.0, abs=1e-4)


def test_plateau_falls_where_the_error_rate_does_not() -> None:
    how = Optimizer(steps=8, learning_rate=1.0, schedule="plateau", warmup_steps=2, plateau_patience=1)
    error_rates = [
        9.0,
        9.0,
        9.0,
        9.0,
        5.0,
        5.0,
        5.0,
        5.0,
    ]  # the first is within the warm-up and does not count
    assert rates(how, error_rates) == pytest.approx([1e-3, 0.5005, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])


def gradients(recipe: Recipe, folder: Path, **settings: int) -> list[torch.Tensor]:
    """The loss and the gradients of the first step, without batch norm, which sees every part by itself."""
    trainer = Trainer(with_optimizer(recipe, gradient_clip=1e9, **settings), folder)
    for module in trainer.model.modules():
        if isinstance(module, Convolution):
            module.batch_norm = torch.nn.Identity()  # type: ignore[assignment]
    loss, _ = trainer._update(trainer.training_set.parts(0))
    found = [parameter.grad for parameter in trainer.model.parameters()]
    return [torch.tensor(loss), *(gradient for gradient in found if gradient is not None)]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(1, 4), (2, 2)])
def test_accumulated_batches_are_one_large_batch(
    recipe: Recipe, tmp_path: Path, batch_size: int, accumulate: int
) -> None:
    large = gradients(recipe, tmp_path, batch_size=4)
    parts = gradients(recipe, tmp_path, batch_size=batch_size, accumulate=accumulate)
    torch.testing.assert_close(parts, large, rtol=1e-3, atol=1e-4)  # of gradients up to 8, in float32
    assert max(float(gradient.abs().max()) for gradient in large[1:]) > 0.1


@pytest.mark.parametrize("settings", [{"batch_size": 3}, {"batch_s": 8.0}])
def test_parts_of_a_batch_are_the_batch(recipe: Recipe, settings: Any) -> None:
    items = training_set(with_optimizer(recipe, accumulate=2, **settings))
    whole, parts = items[0], items.parts(0)
    counts = [len(part.feature_lengths) for part in parts]
    assert len(parts) == 2
    assert [part.weight for part in parts] == [count / len(whole.feature_lengths) for count in counts]
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
    for part, rows in zip(parts, (slice(0, counts[0]), slice(counts[0], None)), strict=True):
        frames = part.features.shape[1]
        assert frames == whole.feature_lengths[rows].max()
        assert torch.equal(part.features, whole.features[rows, :frames])
        assert torch.equal(part.target_lengths, whole.target_lengths[rows])


def test_early_stopping_keeps_the_best_weights(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, averages = iter([50.0, 20.0, 30.0, 20.0]), []

    def error_rate(*_: Any) -> float:
        averages.append({name: value.clone() for name, value in trainer.average.items()})
        return next(given)

    monkeypatch.setattr("edge_speech.training.objectives.ctc.Ctc.error_rate", error_rate)
    recipe = with_optimizer(recipe, steps=100, early_stopping=2)
    trainer = Trainer(recipe, tmp_path)
    trainer.run(quiet=True)
    loaded = load_model(trainer.finish())
    assert (trainer.step, loaded.metrics["best_step"], loaded.metrics["dev_wer"]) == (8, 4, 20.0)
    assert loaded.metrics["steps"] == 8
    assert all(torch.equal(v, averages[1][name]) for name, v in loaded.model.state_dict().items())
    Trainer(recipe, tmp_path).run(quiet=True)  # it is at its end: nothing is trained or measured again
    assert next(given, None) is None


@pytest.mark.parametrize("setting", [{"early_stopping": 3}, {"schedule": "plateau"}])
def test_what_follows_the_dev_error_rate_needs_one(recipe: Recipe, tmp_path: Path, setting: Any) -> None:
    recipe = replace(with_optimizer(recipe, **setting), data=replace(recipe.data, dev=()))
    with pytest.raises(InputError, match=r"add a \[\[data.dev\]\] source"):
        train(recipe, tmp_path, quiet=True)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_of_the_products_alone(recipe: Recipe, tmp_path: Path, precision: Any) -> None:
    recipe = replace(recipe, architecture=NO_DEPTHWISE)
    full = Trainer(recipe, tmp_path)
    half = Trainer(replace(recipe, run=replace(recipe.run, precision=precision)), tmp_path)
    batch = full.training_set[0]
    losses = [trainer._loss(batch) for trainer in (full, half)]
    assert losses[0].item() != losses[1].item()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.02)
    assert losses[1].dtype == torch.float32
    half._update([batch])
    assert {value.dtype for value in half.model.state_dict().values()} <= {torch.float32, torch.int64}


def test_auto_is_float32_on_a_cpu(recipe: Recipe, tmp_path: Path) -> None:
    run = replace(recipe.run, precision="auto", device="cpu")
    assert Trainer(replace(recipe, run=run), tmp_path).precision == torch.float32


def test_overflow_in_fp16_leaves_the_weights_and_lowers_the_scale(recipe: Recipe, tmp_path: Path) -> None:
    run = replace(recipe.run, precision="fp16")
    trainer = Trainer(replace(recipe, architecture=NO_DEPTHWISE, run=run), tmp_path)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**100})
    before = [value.clone() for value in trainer.model.parameters()]
    trainer._update(trainer.training_set.parts(0))
    assert trainer.scaler.get_scale() == 2.0**99
    assert all(map(torch.equal, before, trainer.model.parameters()))
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 8.0})
    trainer._update(trainer.training_set.parts(1))
    assert not all(map(torch.equal, before, trainer.model.parameters()))


@dataclass(frozen=True)
class Item:
    seconds: float


def test_batches_by_seconds_hold_little_padding() -> None:
    rng = np.random.default_rng(0)
    seconds = padded = 0.0
    for _ in range(50):
        batch = batch_of_seconds(rng, lambda: Item(float(rng.uniform(1, 15))), 60.0)
        longest = max(item.seconds for item in batch)
        assert len(batch) * longest <= 60.0
        seconds += sum(item.seconds for item in batch)
        padded += len(batch) * longest
    assert seconds / padded > 0.93
    assert padded / 50 > 45.0


def test_long_items_are_as_likely_in_a_batch_as_short_ones() -> None:
    rng, counts = np.random.default_rng(0), Counter[float]()
    for _ in range(400):
        batch = batch_of_seconds(rng, lambda: Item(float(rng.choice([1.0, 2.0, 10.0]))), 20.0)
        counts.update(item.seconds for item in batch)
    shares = [counts[seconds] / counts.total() for seconds in (1.0, 2.0, 10.0)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


def test_an_item_longer_than_a_batch_is_one() -> None:
    batches = cut_by_length([Item(1.0), Item(30.0), Item(2.0), Item(0.0)], 5.0)
    assert [[item.seconds for item in batch] for batch in batches] == [[30.0], [2.0, 1.0], [0.0]]


def training_set(recipe: Recipe) -> TrainingSet:
    frontend = FbankConfig(sample_rate=8000, num_mel_bins=23)
    return TrainingSet(recipe, Tokens.build("words", [], DIGITS), frontend)


def test_batches_by_seconds_depend_on_seed_and_step_only(recipe: Recipe) -> None:
    recipe = with_optimizer(recipe, batch_s=12.0, accumulate=2)
    first, again = training_set(recipe), training_set(recipe)
    again[0]
    assert torch.equal(first[3].features, again[3].features)
    assert first[3].features.shape != first[2].features.shape
    count, frames = first[3].features.shape[:2]
    assert 12.0 < count * frames / 100 <= 24.0 * 1.2  # the gaps of joined recordings are known by their mean


def test_bpe_spells_the_texts_and_reads_back() -> None:
    texts = ["one two three", "seven seventeen  seventy", "three thirteen thirty"]
    tokens = Tokens.build("bpe", texts, (), 24)
    assert tokens.symbols[0] == "<blk>"
    assert len(set(tokens.symbols)) == 24
    assert any(len(symbol) > 3 and symbol.startswith("▁") for symbol in tokens.symbols)
    numbers = tokens.encode("seventy  three")
    assert numbers is not None
    assert 0 not in numbers
    assert tokens.decode(numbers) == "seventy three"
    assert len(numbers) < len("seventy three")
    assert tokens.encode("zzz") is None
    assert Tokens.build("bpe", texts, (), 24) == tokens


@pytest.mark.parametrize(
    ("texts", "vocabulary", "size", "message"),
    [
        (["one two"], (), 500, "vocabulary_size 500 does not suit .* too high"),
        (["one two"], (), 3, "vocabulary_size 3 does not suit .* smaller than required_chars"),
        ([" "], (), 20, "texts are empty"),
        (["one two"], ("one",), 20, "set data.vocabulary_size in place of data.vocabulary"),
    ],
)
def test_impossible_bpe_is_one_line(
    texts: list[str], vocabulary: tuple[str, ...], size: int, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Tokens.build("bpe", texts, vocabulary, size)
    assert "\n" not in str(caught.value)


def test_hanzi_have_no_word_marks() -> None:
    tokens = Tokens.build("hanzi", ["今天 天气", "很好"], ())
    assert set(tokens.symbols) == {"<blk>", *"今天气很好"}
    numbers = tokens.encode("天气 很好")
    assert numbers is not None
    assert tokens.decode(numbers) == "天气很好"
    assert tokens.encode("雨") is None


def test_hanzi_train_and_are_scored_by_character(recipe: Recipe, digits: Path, tmp_path: Path) -> None:
    hanzi = dict(zip(DIGITS, "零一二三四五六七八九", strict=True))
    with (tmp_path / "clips.jsonl").open("w", encoding="utf-8") as file:
        for line in map(json.loads, (digits / "clips.jsonl").read_text().splitlines()):
            text = " ".join(hanzi[word] for word in line["text"].split())
            path = str(digits / line["audio_filepath"])
            file.write(json.dumps({**line, "text": text, "audio_filepath": path}) + "\n")
    data = replace(recipe.data, root=str(tmp_path), units="hanzi", vocabulary=())
    loaded = load_model(train(replace(recipe, data=data), tmp_path / "run", quiet=True))
    assert set(loaded.tokens[1:]) <= set(hanzi.values())
    assert loaded.metrics["dev_cer"] > 0
    assert "dev_wer" not in loaded.metrics


def test_a_run_leaves_events_environment_and_curve(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path, quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "learning_rate", "gradient_norm", "dev_wer"):
        logged = [(line["step"], line[name]) for line in lines if name in line]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in logged]
        assert [value for _, value in found] == pytest.approx([value for _, value in logged])
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["host"]
    assert environment["git_revision"] is None or len(environment["git_revision"]) >= 40
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_training_needs_neither_tensorboard_nor_matplotlib(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    train(recipe, tmp_path, quiet=True)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"model.pt", "checkpoint.pt", "log.jsonl", "recipe.json", "environment.json"}


def test_revision_is_of_a_checkout_that_tracks_the_code(tmp_path: Path) -> None:
    assert _revision(tmp_path) is None
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert _revision(tmp_path) is None
    (tmp_path / "code.py").write_text("")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["add", "."], [*who, "commit", "--quiet", "--message", "x", "--no-verify"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    revision = _revision(tmp_path)
    assert revision is not None
    assert len(revision) == 40
    (tmp_path / "code.py").write_text("changed")
    assert _revision(tmp_path) == f"{revision}-dirty"
    (tmp_path / "installed").mkdir()
    assert _revision(tmp_path / "installed") is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.schedule=linear", "must be one of cosine, onecycle, plateau, got 'linear'"),
        ("run.precision=fp8", "must be one of auto, fp32, bf16, fp16, got 'fp8'"),
        ("optimizer.accumulate=0", "optimizer.accumulate is 0; it must be at least 1"),
        ("optimizer.batch_s=-1", "optimizer.batch_s is -1.0; it must not be negative"),
        ("optimizer.early_stopping=-1", "must not be negative"),
        ("optimizer.plateau_factor=2", "between 0 and 1"),
        ("optimizer.schedule=[]", "must be one of"),
    ],
)
def test_bad_options_are_named(setting: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('data.train = [{manifest = "clips.jsonl"}]\n')
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "recipe.toml", [setting])


def test_onecycle_needs_steps_after_its_warm_up(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="warmup_steps is 4; 'onecycle' needs fewer than its 4 steps"):
        Trainer(with_optimizer(recipe, schedule="onecycle", warmup_steps=4), tmp_path)
