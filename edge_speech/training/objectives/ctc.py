"""Connectionist temporal classification, with an optional second one of phones halfway up the encoder.

Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf. The second: Krishna, Toshniwal and
Livescu 2018, https://arxiv.org/abs/1807.06234; from little speech, what letters stand for is learnt sooner
when a lower layer is told the phones.
"""

from __future__ import annotations

from pathlib import Path

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training.data import Batch
from edge_speech.training.models import Model
from edge_speech.training.objectives import Objective, output_lengths
from edge_speech.training.pronunciation import Pronunciations, read_pronunciations
from edge_speech.training.recipe import Recipe
from edge_speech.training.tokens import Tokens


def build(recipe: Recipe, tokens: Tokens, model: Model) -> Objective:
    """`ctc` alone, or with the recipe's [auxiliary] phones. Raises InputError."""
    auxiliary = recipe.auxiliary
    if auxiliary is None:
        return Ctc(tokens)
    lexicon = read_pronunciations(Path(recipe.data.root) / auxiliary.lexicon)
    return CtcWithPhones(tokens, model, lexicon, auxiliary.layer, auxiliary.weight)


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
    """(1 - weight) of the units' loss, `weight` of the phones'; these are read from layer number `layer`.

    Of a word with several pronunciations the first is taken; an utterance with a word outside the lexicon
    counts nothing to the phones' loss.
    """

    def __init__(
        self, tokens: Tokens, model: Model, lexicon: Pronunciations, layer: int, weight: float
    ) -> None:
        super().__init__(tokens)
        self.lexicon, self.weight = lexicon, weight
        self._tapped: list[Tensor] = []
        tapped_layer(model, layer).register_forward_hook(self._tap)
        width = self._width(model)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, 1 + len(lexicon.phones))

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
        log_probs = model.parallel(batch.features)
        lengths = output_lengths(model, batch)
        units = ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths)
        return (1 - self.weight) * units + self.weight * self._phone_loss(batch, lengths)

    def _phone_loss(self, batch: Batch, lengths: Tensor) -> Tensor:
        hidden = self._tapped.pop()
        utterances = torch.split(batch.targets, batch.target_lengths.tolist())
        spoken = [self._phones(numbers) for numbers in utterances]
        rows = [row for row, phones in enumerate(spoken) if phones]
        if not rows:
            return hidden.new_zeros(())
        log_probs = functional.log_softmax(self.output(self.norm(hidden[rows])), dim=-1)
        phones = [torch.tensor(spoken[row], device=hidden.device) for row in rows]
        phone_lengths = torch.tensor([len(p) for p in phones])
        share = len(rows) / len(spoken)
        return share * ctc_loss(log_probs, lengths[rows], torch.cat(phones), phone_lengths)

    def _phones(self, numbers: Tensor) -> list[int] | None:
        return self.lexicon.of_text(self.tokens.decode(numbers.tolist()))


def tapped_layer(model: Model, number: int) -> nn.Module:
    """Layer `number` of `model.layers`, counted from 1. Raises InputError."""
    layers = getattr(model, "layers", ())
    if not len(layers):
        raise InputError("recipe: [auxiliary] needs a model of layers, such as the conformer")
    if not 1 <= number <= len(layers):
        raise InputError(f"recipe: auxiliary.layer is {number}; this model's layers are 1 to {len(layers)}")
    layer: nn.Module = layers[number - 1]
    return layer
