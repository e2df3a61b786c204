"""Numbers about a recording, such as its level: the mean over its rows of a linear head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training import recipe as recipes
from edge_speech.training.data import Batch
from edge_speech.training.models import Model
from edge_speech.training.objectives import Objective, output_lengths
from edge_speech.training.recipe import Recipe
from edge_speech.training.tokens import Tokens


def build(recipe: Recipe, tokens: Tokens, model: Model) -> Objective:
    """Squared and absolute error with the recipe's [regression] weights. Raises InputError."""
    if recipe.data.units != "numbers" or getattr(model.config, "head", "") != "linear":
        raise InputError(
            "objective 'regression' needs data.units = 'numbers' and model.head = 'linear'; the recipe has "
            f"{recipe.data.units!r} and {recipe.model.get('head', 'log_softmax')!r}"
        )
    return Regression(recipe.regression or recipes.Regression())


class Regression(Objective):
    """`said` and `heard` are numbers written out, as the data gives them for units "numbers"."""

    error = "mae"

    def __init__(self, weights: recipes.Regression) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """See Objective. Raises InputError on joined recordings, whose numbers are not those of the whole."""
        found = mean_of_rows(model.parallel(batch.features), output_lengths(model, batch))
        if len(batch.targets) != found.numel():
            raise InputError("objective 'regression' learns from single recordings; leave out compose")
        wanted = batch.targets.view_as(found)
        squared, absolute = functional.mse_loss(found, wanted), functional.l1_loss(found, wanted)
        return self.weights.mse_weight * squared + self.weights.l1_weight * absolute

    def decode(self, model: Model, features: Tensor) -> str:
        """See Objective."""
        rows = model.parallel(features)
        found = mean_of_rows(rows, torch.tensor([rows.shape[1]]))
        return " ".join(map(repr, found[0].tolist()))

    def error_rate(self, said: list[str], heard: list[str]) -> float:
        """Mean absolute error over recordings and numbers, in their unit."""
        wanted, found = (np.array([text.split() for text in texts], np.float64) for texts in (said, heard))
        return round(float(np.abs(wanted - found).mean()), 4)


def mean_of_rows(outputs: Tensor, lengths: Tensor) -> Tensor:
    """outputs (B, T, V), rows of each (B,) → the mean (B, V) over an utterance's own rows, float32."""
    lengths = lengths.to(outputs.device)[:, None]
    inside = torch.arange(outputs.shape[1], device=outputs.device) < lengths
    return (outputs.float() * inside[:, :, None]).sum(dim=1) / lengths
