"""What training minimises: the files of `objectives`, and phones as a second target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training.objectives import Objective, available, build, ctc
from edge_speech.training.pronunciation import read_pronunciations
from edge_speech.training.recipe import Auxiliary, Compose, Data, Optimizer, Recipe, Run, Source
from edge_speech.training.train import Trainer, train

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LEXICON = """;;; CMUdict's comments
one W AH1 N
one(2) HH W AH1 N # the first counts
TWO T UW1
three TH R IY1
four F AO1 R
five F AY1 V
six S IH1 K S
seven S EH1 V AH0 N
eight EY1 T
nine N AY1 N
"""


@pytest.fixture
def recipe(digits: Path, tmp_path: Path) -> Recipe:
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    source = Source("clips.jsonl", compose=Compose(max_count=1))
    model = {"d_model": 16, "num_layers": 2, "num_heads": 2, "feed_forward_dim": 32, "dropout": 0.0}
    return Recipe(
        data=Data((source,), root=str(digits), dev=(Source("clips.jsonl"),), vocabulary=DIGITS),
        model=model,
        frontend={"type": "fbank", "sample_rate": 8000, "num_mel_bins": 23},
        optimizer=Optimizer(steps=4, batch_size=4, warmup_steps=2),
        auxiliary=Auxiliary(str(tmp_path / "lexicon.txt"), layer=1, weight=0.4),
        run=Run(workers=0, log_every=1, evaluate_every=2, checkpoint_every=2),
    )


def test_a_lexicon_gives_the_phones_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(LEXICON)
    lexicon = read_pronunciations(path)
    found = lexicon.of_text("One two")
    assert found is not None
    assert [lexicon.phones[n - 1] for n in found] == ["W", "AH", "N", "T", "UW"]
    assert lexicon.of_text("two zero") is None
    assert 0 not in {n for phones in lexicon.of_word.values() for n in phones}


@pytest.mark.parametrize("content", ["", ";;; nothing else\n", "word\n"])
def test_a_file_without_pronunciations_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text(content)
    with pytest.raises(InputError, match="word phone phone"):
        read_pronunciations(path)


def test_a_missing_or_binary_lexicon_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as a pronouncing lexicon"):
        read_pronunciations(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(bytes(range(128, 256)))
    with pytest.raises(InputError, match="cannot be read as a pronouncing lexicon"):
        read_pronunciations(tmp_path / "binary")


def test_the_loss_is_the_weighted_sum_of_units_and_known_phones(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    objective, model, batch = trainer.objective, trainer.model.eval(), trainer.training_set[0]
    assert isinstance(objective, ctc.CtcWithPhones)
    hidden: list[torch.Tensor] = []
    model.layers[0].register_forward_hook(lambda *seen: hidden.append(seen[2][0]))  # type: ignore[union-attr,index]
    with torch.no_grad():
        found = objective(model, batch)
        units = ctc.Ctc(trainer.tokens)(model, batch)
        losses = []
        numbers = torch.split(batch.targets, batch.target_lengths.tolist())
        for row, target in enumerate(numbers):
            phones = objective.lexicon.of_text(trainer.tokens.decode(target.tolist()))
            if phones is None:  # "zero" is not in the lexicon
                continue
            log_probs = objective.output(objective.norm(hidden[0][row])).log_softmax(-1)
            frames = -(-int(batch.feature_lengths[row]) // 4)
            one = functional.ctc_loss(
                log_probs, torch.tensor(phones), torch.tensor(frames), torch.tensor(len(phones))
            )
            losses.append(float(one))
    assert 0 < len(losses)
    assert float(found) == pytest.approx(0.6 * float(units) + 0.4 * sum(losses) / len(numbers), rel=1e-4)


def test_phones_train_the_layers_below_alone(recipe: Recipe, tmp_path: Path) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    objective, model, batch = trainer.objective, trainer.model, trainer.training_set[0]
    assert isinstance(objective, ctc.CtcWithPhones)
    model.parallel(batch.features)
    objective._phone_loss(batch, torch.div(batch.feature_lengths + 3, 4, rounding_mode="floor")).backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("layers.0.") for name in trained)
    assert not any(name.startswith(("layers.1.", "output.")) for name in trained)


def test_a_run_with_phones_resumes_to_the_same_weights_and_ships_none(recipe: Recipe, tmp_path: Path) -> None:
    whole = train(recipe, tmp_path / "whole", quiet=True)
    (tmp_path / "cut").mkdir()
    trainer = Trainer(recipe, tmp_path / "cut")
    for step in range(2):
        trainer._update(trainer.training_set[step])
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
    with pytest.raises(InputError, match=r"unknown objective 'rnnt'; there are .*\bctc\b"):
        Trainer(replace(recipe, objective="rnnt"), tmp_path / "run")


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="must be between 0 and 1"):
        Auxiliary("lexicon.txt", layer=1, weight=weight)


@pytest.mark.parametrize("name", sorted({*available()} - {"regression"}))  # which hears numbers, not words
def test_objectives_say_what_they_count(recipe: Recipe, tmp_path: Path, name: str) -> None:
    trainer = Trainer(recipe, tmp_path / "run")
    objective = build(replace(recipe, objective=name, auxiliary=None), trainer.tokens, trainer.model)
    assert isinstance(objective, Objective)
    assert objective.error
    said = [text for _, text in trainer.evaluation]
    assert objective.error_rate(said, said) == 0.0
    heard = [objective.decode(trainer.model.eval(), features) for features, _ in trainer.evaluation]
    assert 0.0 < objective.error_rate(said, heard)
