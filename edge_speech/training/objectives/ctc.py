"""Connectionist temporal classification, with an optional second target for a lower layer: phones.

Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf. Told which phone is said when, a model
need not find out from little speech both what letters stand for and where they are. Phones for the lower
layers: Toshniwal et al. 2017, https://arxiv.org/abs/1704.01631.
"""

from __future__ import annotations

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training.data import Batch
from edge_speech.training.models import Model
from edge_speech.training.objectives import Objective, output_lengths
from edge_speech.training.phone_labels import UNKNOWN_LABEL, PhoneLabels
from edge_speech.training.recipe import Recipe
from edge_speech.training.tokens import Tokens


def build(recipe: Recipe, tokens: Tokens, model: Model) -> Objective:
    """`ctc` alone, or with the recipe's [auxiliary] phones. Raises InputError."""
    auxiliary = recipe.auxiliary
    if auxiliary is None:
        return Ctc(tokens)
    phones = len(PhoneLabels.of(recipe).phones)
    return CtcWithPhones(tokens, model, phones, auxiliary.layer, auxiliary.weight)


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """log_probs (B, T, V), rows of each (B,), targets one after the other → mean loss per token."""
    return functional.ctc_loss(
        log_probs.float().transpose(0, 1), targets, lengths, target_lengths, zero_infinity=True
    )


def best_path(log_probs: Tensor) -> list[int]:
    """Token numbers along the most probable alignment of log_probs (T, V)."""
    best = torch.unique_consecutive(log_probs.argmax(dim=1))
    return [int(number) for number in best if number]


class Ctc(Objective):
    """Loss of the units the model writes; dev recordings are decoded along the best path."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self.tokens = tokens
        self.error = tokens.error_rate

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """See Objective."""
        log_probs = model.parallel(batch.features)
        return ctc_loss(log_probs, output_lengths(model, batch), batch.targets, batch.target_lengths)

    def decode(self, model: Model, features: Tensor) -> str:
        """See Objective."""
        return self.tokens.decode(best_path(model.parallel(features)[0]))

    def error_rate(self, said: list[str], heard: list[str]) -> float:
        """Word error rate; of units without word marks the character error rate, without spaces."""
        if self.error == "wer":
            return round(100 * jiwer.wer(said, heard), 2)
        return round(100 * jiwer.cer(["".join(text.split()) for text in said], heard), 2)


class CtcWithPhones(Ctc):
    """(1 - weight) of the units' loss and `weight` of the phones', which is cross-entropy in each row.

    Phones are read from what layer number `layer` gives. A row has the phone of its first frame, so the
    layer has heard some of what follows.
    """

    def __init__(self, tokens: Tokens, model: Model, phones: int, layer: int, weight: float) -> None:
        super().__init__(tokens)
        self.weight = weight
        self._tapped: list[Tensor] = []
        tapped_layer(model, layer).register_forward_hook(self._tap)
        width = self._width(model)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 1 + phones)

    def _tap(self, _layer: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        self._tapped = [output if isinstance(output, Tensor) else output[0]]

    def _width(self, model: Model) -> int:
        """Size of what the layer gives, seen by running it."""
        model.eval()
        with torch.no_grad():
            model.parallel(torch.zeros(1, model.subsampling_factor, model.config.num_features))
        return self._tapped.pop().shape[-1]

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """See Objective."""
        units = super().forward(model, batch)
        labels = batch.labels[:, :: model.subsampling_factor].to(units.device)
        return (1 - self.weight) * units + self.weight * self._phone_loss(labels)

    def _phone_loss(self, labels: Tensor) -> Tensor:
        """Mean over the rows of which the phone is known; labels (B, T)."""
        hidden = self._tapped.pop()[:, : labels.shape[1]]
        logits = self.output(self.norm(hidden)).float().flatten(0, 1)
        known = (labels != UNKNOWN_LABEL).sum().clamp(min=1)
        summed = functional.cross_entropy(
            logits, labels.flatten(), ignore_index=UNKNOWN_LABEL, reduction="sum"
        )
        return summed / known


def tapped_layer(model: Model, number: int) -> nn.Module:
    """Layer `number` of `model.layers`, counted from 1. Raises InputError."""
    layers = getattr(model, "layers", ())
    if not len(layers):
        raise InputError("recipe: [auxiliary] needs a model of layers, such as the conformer")
    if not 1 <= number <= len(layers):
        raise InputError(f"recipe: auxiliary.layer is {number}; this model's layers are 1 to {len(layers)}")
    layer: nn.Module = layers[number - 1]
    return layer
