"""A run that starts from a trained model: to go on, or to learn other tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.checkpoint import load_model
from edge_speech.training.recipe import Recipe
from edge_speech.training.train import Trainer, train
from tiny_recipe import DIGITS, tiny_recipe


@pytest.fixture
def recipe(digits: Path) -> Recipe:
    return tiny_recipe(digits, steps=2)


@pytest.fixture
def trained(recipe: Recipe, tmp_path: Path) -> Path:
    return train(replace(recipe, run=replace(recipe.run, seed=7)), tmp_path / "trained", quiet=True)


def started(recipe: Recipe, weights: Path, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    folder.mkdir()
    model = {**recipe.model, "weights": str(weights), **settings}
    return Trainer(replace(recipe, model=model), folder).model.state_dict()


def test_the_run_begins_with_every_weight_and_statistic(
    recipe: Recipe, trained: Path, tmp_path: Path
) -> None:
    found = started(recipe, trained, tmp_path / "run")
    given = load_model(trained).model.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in found.items())
    assert found["feature_mean"].abs().sum() > 0


def test_other_tokens_get_a_fresh_output(recipe: Recipe, trained: Path, tmp_path: Path) -> None:
    other = replace(recipe, data=replace(recipe.data, vocabulary=tuple(reversed(DIGITS))))
    found, given = started(other, trained, tmp_path / "run"), load_model(trained).model.state_dict()
    differing = {name for name, value in found.items() if not torch.equal(value, given[name])}
    assert differing == {"output.weight", "output.bias"}
    fewer = replace(recipe, data=replace(recipe.data, units="characters", vocabulary=()))
    assert len(started(fewer, trained, tmp_path / "letters")["output.bias"]) > 12


def test_a_resumed_run_needs_the_weights_no_more(recipe: Recipe, trained: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, model={**recipe.model, "weights": str(trained)})
    whole = train(recipe, tmp_path / "whole", quiet=True)
    (tmp_path / "cut").mkdir()
    trainer = Trainer(recipe, tmp_path / "cut")
    trainer._update(trainer.training_set.parts(0))
    trainer.save()
    trained.unlink()
    cut = train(recipe, tmp_path / "cut", quiet=True)
    one, other = (load_model(path).model.state_dict() for path in (whole, cut))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert "weights" not in load_model(whole).config


@pytest.mark.parametrize("architecture", models.available())
def test_every_architecture_can_learn_other_tokens(recipe: Recipe, tmp_path: Path, architecture: str) -> None:
    recipe = replace(recipe, architecture=architecture, model={"size": "small"})
    (tmp_path / "first").mkdir()
    first = Trainer(recipe, tmp_path / "first")
    other = replace(
        recipe,
        data=replace(recipe.data, vocabulary=tuple(reversed(DIGITS))),
        run=replace(recipe.run, seed=7),
    )
    found, given = started(other, first.finish(), tmp_path / "run"), first.model.state_dict()
    differing = {name for name, value in found.items() if not torch.equal(value, given[name])}
    assert differing == {"output.weight", "output.bias"}


def test_what_does_not_fit_is_named(recipe: Recipe, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is \(16,.*, the recipe's \(24"):
        started(recipe, trained, tmp_path / "wide", d_model=24)
    with pytest.raises(InputError, match=r"has no layers\.1\."):
        started(recipe, trained, tmp_path / "deep", num_layers=2)
    other = replace(recipe, frontend={**recipe.frontend, "low_freq_hz": 50.0})
    with pytest.raises(InputError, match="own architecture and front end"):
        started(other, trained, tmp_path / "frontend")
    with pytest.raises(InputError, match="no such file"):
        started(recipe, tmp_path / "none.pt", tmp_path / "none")
    with pytest.raises(InputError, match="must be the name of a file, got 3"):
        Trainer(replace(recipe, model={**recipe.model, "weights": 3}), tmp_path)
