"""What training minimises: the files of `objectives`, and phones as a second target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge_speech.errors import InputError
from edge_speech.training.objectives import Objective, available, build, ctc
from edge_speech.training.phone_labels import UNKNOWN_LABEL, PhoneLabels, read_ctm
from edge_speech.training.recipe import Auxiliary, Compose, Distillation, Recipe, Source
from edge_speech.training.train import Trainer, train
from tiny_recipe import tiny_recipe

# Of the first clips; 60 ms of silence, then phones, the last of them longer than the clip.
CTM = """;; NIST's comments
{0} 1 0.06 0.10 AH
{0} 1 0.16 0.04 B
{0} 1 0.30 90.0 AH

{1} 1 0.00 0.50 K 0.9
"""


@pytest.fixture
def recipe(digits: Path, tmp_path: Path) -> Recipe:
    names = [Path(json.loads(line)["audio_filepath"]).stem for line in (digits / "clips.jsonl").open()]
    (tmp_path / "clips.ctm").write_text(CTM.format(*names))
    recipe = tiny_recipe(digits, num_layers=2)
    source = Source("clips.jsonl", alignment=str(tmp_path / "clips.ctm"))
    data = replace(recipe.data, train=(source,))
    return replace(recipe, data=data, auxiliary=Auxiliary(layer=1, weight=0.4))


def test_frames_have_the_phones_of_a_ctm(recipe: Recipe, digits: Path) -> None:
    labels = PhoneLabels.of(recipe)
    name = next(name for name, times in labels.sources[0].items() if len(times) == 3)
    assert labels.phones == ("AH", "B", "K")
    found = labels.frames(0, name, 35, 0.01)
    assert found.tolist() == [0] * 6 + [1] * 10 + [2] * 4 + [0] * 10 + [1] * 5
    assert (
        labels.frames(0, name, 18, 0.01, speed=2.0).tolist()
        == [0] * 3 + [1] * 5 + [2] * 2 + [0] * 5 + [1] * 3
    )
    assert labels.frames(0, "another", 3, 0.01).tolist() == [-1] * 3


def test_batches_carry_labels_beside_their_frames(recipe: Recipe, tmp_path: Path) -> None:
    quiet = replace(recipe, augment=replace(recipe.augment, speeds=(0.5, 2.0)))
    trained = Trainer(quiet, tmp_path).training_set
    assert trained.phones is not None
    for step in range(4):
        batch = trained[step]
        assert batch.labels.shape == batch.features.shape[:2]
        for row, draw in enumerate(trained.draws(step)):
            name = draw.source.utterances[draw.indices[0]].audio_path.stem
            count = int(batch.feature_lengths[row])
            expected = trained.phones.frames(0, name, count, 0.01, draw.speed)
            assert batch.labels[row, :count].tolist() == expected.tolist()
            assert (batch.labels[row, count:] == UNKNOWN_LABEL).all()


def test_joined_recordings_have_no_labels(recipe: Recipe, tmp_path: Path) -> None:
    (source,) = recipe.data.train
    joined = replace(source, compose=Compose(min_count=2, max_count=2))
    recipe = replace(recipe, data=replace(recipe.data, train=(joined,)))
    trainer = Trainer(recipe, tmp_path)
    batch = trainer.training_set[0]
    assert (batch.labels == UNKNOWN_LABEL).all()
    with torch.no_grad():
        assert float(trainer.objective(trainer.model, batch)) > 0


@pytest.mark.parametrize(
    "line", ["clip 1 0.0 0.1", "clip 1 zero 0.1 AH", "clip 1 -0.1 0.1 AH", "clip 1 0.0 nan AH", "clip"]
)
def test_a_line_that_is_no_ctm_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "odd.ctm").write_text(f"clip 1 0.0 0.1 AH\n{line}\n")
    with pytest.raises(InputError, match=r"odd\.ctm:2: .* is not \"recording channel start duration label\""):
        read_ctm(tmp_path / "odd.ctm")


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    for name in ("none.ctm", "binary"):
        with pytest.raises(InputError, match="cannot be read as a CTM file"):
            read_ctm(tmp_path / name)


def test_an_alignment_of_another_corpus_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "clips.ctm").write_text("elsewhere 1 0.0 0.1 AH\n")
    with pytest.raises(
        InputError, match=r"names none of the recordings of clips\.jsonl, such as '0000_george'"
    ):
        Trainer(recipe, tmp_path / "run")


def test_phones_without_an_alignment_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    (source,) = recipe.data.train
    recipe = replace(recipe, data=replace(recipe.data, train=(replace(source, alignment=""),)))
    with pytest.raises(InputError, match=r"needs a .* source with an alignment"):
        Trainer(recipe, tmp_path)


def test_the_loss_is_the_weighted_sum_of_units_and_phones(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    objective, model, batch = trainer.objective, trainer.model.eval(), trainer.training_set[0]
    assert isinstance(objective, ctc.CtcWithPhones)
    hidden: list[torch.Tensor] = []
    model.layers[0].register_forward_hook(lambda *seen: hidden.append(seen[2][0]))  # type: ignore[union-attr,index]
    with torch.no_grad():
        found = objective(model, batch)
        units = ctc.Ctc(trainer.tokens)(model, batch)
        losses = []
        for row, frames in enumerate(batch.feature_lengths.tolist()):
            log_probs = objective.output(objective.norm(hidden[0][row])).log_softmax(-1)
            for i in range(-(-frames // 4)):
                label = int(batch.labels[row, 4 * i])
                if label >= 0:
                    losses.append(-float(log_probs[i, label]))
    assert len(losses) > 50
    expected = 0.6 * float(units) + 0.4 * sum(losses) / len(losses)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_phones_train_the_layers_below_alone(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    objective, model, batch = trainer.objective, trainer.model, trainer.training_set[0]
    assert isinstance(objective, ctc.CtcWithPhones)
    model.parallel(batch.features)
    objective._phone_loss(batch.labels[:, ::4]).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("layers.0.") for name in trained)
    assert not any(name.startswith(("layers.1.", "output.")) for name in trained)


def test_a_run_with_phones_resumes_to_the_same_weights_and_ships_none(recipe: Recipe, tmp_path: Path) -> None:
    whole = train(recipe, tmp_path / "whole", quiet=True)
    (tmp_path / "cut").mkdir()
    trainer = Trainer(recipe, tmp_path / "cut")
    for step in range(2):
        trainer._update(trainer.training_set.parts(step))
    trainer.save()
    cut = train(recipe, tmp_path / "cut", quiet=True)
    first, second = (torch.load(p, weights_only=True)["state_dict"] for p in (whole, cut))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert set(first) == set(trainer.model.state_dict())


@pytest.mark.parametrize("layer", [0, 3])
def test_a_layer_that_is_not_there_is_refused(recipe: Recipe, tmp_path: Path, layer: int) -> None:
    assert recipe.auxiliary is not None
    with pytest.raises(InputError, match=f"auxiliary.layer is {layer}; this model's layers are 1 to 2"):
        Trainer(replace(recipe, auxiliary=replace(recipe.auxiliary, layer=layer)), tmp_path / "run")


def test_an_unknown_objective_is_refused_with_the_known_ones(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown objective 'rnnt'; there are .*ctc"):
        Trainer(replace(recipe, objective="rnnt", auxiliary=None), tmp_path / "run")


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="must be between 0 and 1"):
        Auxiliary(layer=1, weight=weight)


@pytest.mark.parametrize("name", sorted({*available()} - {"regression"}))  # which hears numbers, not words
def test_objectives_say_what_they_count(recipe: Recipe, tmp_path: Path, name: str) -> None:
    trainer = Trainer(recipe, tmp_path)
    section = Distillation(str(trainer.finish())) if name == "distillation" else None
    recipe = replace(recipe, objective=name, auxiliary=None, distillation=section)
    objective = build(recipe, trainer.tokens, trainer.model)
    assert isinstance(objective, Objective)
    assert objective.error
    said = [text for _, text in trainer.evaluation]
    assert objective.error_rate(said, said) == 0.0
    heard = [objective.decode(trainer.model.eval(), features) for features, _ in trainer.evaluation]
    assert 0.0 < objective.error_rate(said, heard)
