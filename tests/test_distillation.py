"""A student learns from a teacher: its rows, its texts, whatever its front end, its rate and its tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training.objectives.ctc import Ctc
from edge_speech.training.objectives.distillation import Distillation, overlaps, places_of
from edge_speech.training.recipe import Distillation as Settings
from edge_speech.training.recipe import Recipe
from edge_speech.training.train import Trainer, train
from tiny_recipe import DIGITS, tiny_recipe


@pytest.fixture
def plain(digits: Path) -> Recipe:
    return tiny_recipe(digits, steps=1)


@pytest.fixture
def teacher(plain: Recipe, tmp_path: Path) -> Path:
    """Twice the rate of samples, other frames, the same words in another order, other letters' case."""
    recipe = replace(
        plain,
        data=replace(plain.data, vocabulary=tuple(reversed(DIGITS))),
        frontend={"type": "fbank", "sample_rate": 16000, "num_mel_bins": 30, "frame_shift_ms": 5.0},
    )
    return train(recipe, tmp_path / "teacher", quiet=True)


def trainer_of(plain: Recipe, teacher: Path, folder: Path, **settings: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    how = Settings(str(teacher), **settings)
    return Trainer(replace(plain, objective="distillation", distillation=how), folder)


def test_rows_are_compared_in_time_and_by_symbol(plain: Recipe, teacher: Path, tmp_path: Path) -> None:
    trainer = trainer_of(plain, teacher, tmp_path / "run", frame_weight=1.0, temperature=2.0)
    batch, objective, model = trainer.training_set[0], trainer.objective, trainer.model.eval()
    assert isinstance(objective, Distillation)
    with torch.no_grad():
        found = float(objective(model, batch))
        taught, rows = objective._ask(batch)
        own = (model.parallel(batch.features) / 2).log_softmax(-1)
    order = [0, *reversed(range(1, 11))]
    total, count = 0.0, 0
    for row, frames in enumerate(batch.feature_lengths.tolist()):
        for i in range(-(-frames // 4)):  # 40 ms against 20 ms: two of the teacher's rows to one
            if 2 * i >= int(rows[row]):
                continue
            span = (
                taught[row, [2 * i, 2 * i + 1]] if 2 * i + 1 < taught.shape[1] else taught[row, [2 * i] * 2]
            )
            target = (span / 2).softmax(-1)[:, order].mean(0)
            total += float(functional.kl_div(own[row, i], target, reduction="sum"))
            count += 1
    assert count > 50
    assert found == pytest.approx(4 * total / count, rel=1e-4)


def test_a_teacher_of_itself_diverges_by_nothing(plain: Recipe, tmp_path: Path) -> None:
    alone = train(plain, tmp_path / "alone", quiet=True)
    trainer = trainer_of(
        replace(plain, augment=replace(plain.augment, tilt_db=0.0, time_masks=0, frequency_masks=0)),
        alone,
        tmp_path / "run",
        frame_weight=1.0,
    )
    objective, batch = trainer.objective, trainer.training_set[0]
    assert isinstance(objective, Distillation)
    with torch.no_grad():
        assert float(objective(objective.teacher.model, batch)) == pytest.approx(0.0, abs=1e-5)  # type: ignore[arg-type]
        assert float(objective(trainer.model.eval(), batch)) > 1e-3


def test_the_teachers_texts_are_targets(plain: Recipe, teacher: Path, tmp_path: Path) -> None:
    trainer = trainer_of(plain, teacher, tmp_path / "run", frame_weight=0.0, sequence_weight=0.25)
    batch, objective, model = trainer.training_set[0], trainer.objective, trainer.model.eval()
    assert isinstance(objective, Distillation)

    def says(waveforms: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Five and two of the first recording, nothing of the others."""
        log_probs = torch.full((len(lengths), 12, 11), -9.0)
        log_probs[:, :, 0] = -1e-3
        for row, symbol in ((2, "▁five"), (5, "▁two")):
            log_probs[0, row, objective.teacher.tokens.index(symbol)] = 0.0
        return log_probs, torch.full((len(lengths),), 12)

    objective.teacher.log_probs = says  # type: ignore[method-assign]
    with torch.no_grad():
        found = float(objective(model, batch))
        own = float(Ctc(trainer.tokens)(model, batch))
        log_probs = model.parallel(batch.features[:1, : int(batch.feature_lengths[0])])[0]
    numbers = trainer.tokens.encode("five two")
    assert numbers is not None
    of_text = functional.ctc_loss(
        log_probs, torch.tensor(numbers), torch.tensor(len(log_probs)), torch.tensor(2)
    )
    assert found == pytest.approx(0.75 * own + 0.25 * float(of_text) / len(batch.target_lengths), rel=1e-4)


def test_a_student_comes_to_say_what_its_teacher_says(plain: Recipe, teacher: Path, tmp_path: Path) -> None:
    """The teacher here knows nothing and yet has favourites: an untrained one, made to speak."""
    recipe = replace(plain, optimizer=replace(plain.optimizer, steps=60, learning_rate=1e-2, warmup_steps=5))
    trainer = trainer_of(recipe, teacher, tmp_path / "run", frame_weight=1.0)
    objective = trainer.objective
    assert isinstance(objective, Distillation)
    objective.teacher.model.output.weight.data.mul_(6.0)  # type: ignore[union-attr,operator]
    losses = [trainer._update(trainer.training_set.parts(step))[0] for step in range(60)]
    assert np.mean(losses[-5:]) < 0.35 * np.mean(losses[:5])


def test_a_chunked_student_learns_from_a_teacher_of_full_context(plain: Recipe, tmp_path: Path) -> None:
    """The teacher's chunk covers every clip; the student's is two rows."""
    whole = train(
        replace(plain, model={**plain.model, "chunk_frames": 1024}), tmp_path / "teacher", quiet=True
    )
    how = replace(plain.optimizer, steps=30, learning_rate=1e-2, warmup_steps=5)
    recipe = replace(plain, model={**plain.model, "chunk_frames": 8}, optimizer=how)
    trainer = trainer_of(recipe, whole, tmp_path / "run", frame_weight=0.7)
    batch, objective = trainer.training_set[0], trainer.objective
    assert isinstance(objective, Distillation)
    taught = objective.teacher.model.eval()
    with torch.no_grad():
        taught.output.weight.mul_(6.0)  # type: ignore[union-attr, operator]
        other = batch.features.clone()
        other[:, -8:] += 1.0
        for model, hears_the_end in ((taught, True), (trainer.model.eval(), False)):
            first, changed = model.parallel(batch.features)[:, 0], model.parallel(other)[:, 0]  # type: ignore[operator]
            assert torch.equal(first, changed) is not hears_the_end
        before = float(objective(trainer.model, batch))
    for _ in range(30):
        trainer._update([batch])
    with torch.no_grad():
        assert float(objective(trainer.model.eval(), batch)) < 0.5 * before


def test_the_shares_of_rows_cover_each_row_once() -> None:
    halves = overlaps(3, 0.04, 6, 0.02)
    assert halves.numpy() == pytest.approx(np.kron(np.eye(3), [[0.5, 0.5]]))
    uneven = overlaps(4, 0.04, 2, 0.05)
    torch.testing.assert_close(uneven.sum(1), torch.ones(4, dtype=torch.float64))
    assert uneven[0].tolist() == pytest.approx([1.0, 0.0])
    assert uneven[1].tolist() == pytest.approx([0.25, 0.75])
    assert uneven[3].tolist() == pytest.approx([0.0, 1.0])  # beyond the teacher's end


def test_symbols_are_found_in_capitals_and_missing_ones_are_named() -> None:
    assert places_of(("<blk>", "▁", "a"), ("<blk>", "▁", "E", "A")) == [0, 1, 3]
    assert places_of(("<blk>", "a"), ("<blk>", "a", "A")) == [0, 1]
    with pytest.raises(InputError, match="no token 'b'"):
        places_of(("<blk>", "b"), ("<blk>", "A"))


def test_parts_of_a_batch_keep_their_waveforms(plain: Recipe, teacher: Path, tmp_path: Path) -> None:
    recipe = replace(plain, optimizer=replace(plain.optimizer, accumulate=3))
    trained = trainer_of(recipe, teacher, tmp_path / "run").training_set
    batch, parts = trained[0], trained.parts(0)
    assert batch.waveforms.shape == (12, int(batch.waveform_lengths.max()))
    assert torch.equal(torch.cat([part.waveform_lengths for part in parts]), batch.waveform_lengths)
    for first, part in zip((0, 4, 8), parts, strict=True):
        n = int(part.waveform_lengths[0])
        assert torch.equal(part.waveforms[0, :n], batch.waveforms[first, :n])


@pytest.mark.parametrize("settings", [{}, {"frame_weight": 0.2, "sequence_weight": 0.8}])
def test_a_run_resumes_to_the_same_weights(
    plain: Recipe, teacher: Path, tmp_path: Path, settings: dict[str, float]
) -> None:
    how = Settings(str(teacher), **settings)  # type: ignore[arg-type]
    recipe = replace(plain, objective="distillation", distillation=how)
    recipe = replace(recipe, optimizer=replace(plain.optimizer, steps=3, accumulate=2))
    whole = train(recipe, tmp_path / "whole", quiet=True)
    (tmp_path / "cut").mkdir()
    trainer = Trainer(recipe, tmp_path / "cut")
    trainer._update(trainer.training_set.parts(0))
    trainer.save()
    cut = train(recipe, tmp_path / "cut", quiet=True)
    first, second = (torch.load(p, weights_only=True)["state_dict"] for p in (whole, cut))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"frame_weight": 0.0}, "their sum must be above 0"),
        ({"frame_weight": 0.8, "sequence_weight": 0.4}, "at most 1"),
        ({"frame_weight": -0.1, "sequence_weight": 0.4}, "must not be negative"),
        ({"temperature": 0.0}, "temperature is 0.0"),
    ],
)
def test_odd_weights_are_refused(settings: dict[str, float], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Settings("model.pt", **settings)  # type: ignore[arg-type]


def test_sections_need_their_objective(plain: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\[distillation\] needs objective = 'distillation', got 'ctc'"):
        replace(plain, distillation=Settings("model.pt"))
    with pytest.raises(InputError, match=r"needs a \[distillation\] section"):
        Trainer(replace(plain, objective="distillation"), tmp_path)


def test_a_missing_teacher_is_named(plain: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pt: no such file"):
        trainer_of(plain, tmp_path / "none.pt", tmp_path / "run")
