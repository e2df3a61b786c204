"""What a run minimises. One file per objective: `build(recipe, tokens, model)` makes it."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn

from edge_speech.errors import InputError
from edge_speech.training.data import Batch
from edge_speech.training.models import Model
from edge_speech.training.recipe import Recipe
from edge_speech.training.tokens import Tokens


class Objective(nn.Module, ABC):
    """The loss of a batch, and what is counted on dev recordings under the name `error`.

    An error is in percent; only "mae" is in the unit of the numbers that are learnt.
    Parameters of its own are trained beside the model's and are not in model.pt.
    """

    error: str

    @abstractmethod
    def forward(self, model: Model, batch: Batch) -> Tensor:
        """Mean loss of the batch's utterances, a scalar; the batch is on the model's device."""

    @abstractmethod
    def decode(self, model: Model, features: Tensor) -> str:
        """What the model says of features (1, T, F), to be compared with the recording's text."""

    @abstractmethod
    def error_rate(self, said: list[str], heard: list[str]) -> float:
        """The error of what was heard where `said` was right."""

    def watched(self, model: Model) -> dict[str, Model]:
        """What else to count the error of, by name: models made of the weights of `model`."""
        return {}


def available() -> list[str]:
    """Names of the objectives there is a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def build(recipe: Recipe, tokens: Tokens, model: Model) -> Objective:
    """Make the recipe's objective. Raises InputError."""
    if recipe.objective not in available():
        raise InputError(f"unknown objective {recipe.objective!r}; there are {', '.join(available())}")
    module = importlib.import_module(f"{__name__}.{recipe.objective}")
    objective: Objective = module.build(recipe, tokens, model)
    return objective


def output_lengths(model: Model, batch: Batch) -> Tensor:
    """Rows of log_probs (B,) that belong to each utterance."""
    factor = model.subsampling_factor
    return (batch.feature_lengths + factor - 1) // factor
