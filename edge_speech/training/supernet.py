"""One run for many sizes: networks of fewer layers, channels and taps share the weights of the largest.

Each step the largest learns by the recipe's objective, and the smallest and one drawn at random from the
texts and from what the largest says of the batch: the sandwich rule with in-place distillation, Yu and Huang
2019, https://arxiv.org/abs/1903.05134. Their batch norm goes by the statistics that the largest gathers, in
training as later on the device, so that a network taken out is the one that was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel
from edge_speech.training.data import Batch
from edge_speech.training.fake_quantization import freeze_statistics
from edge_speech.training.models import Model
from edge_speech.training.objectives import Objective, output_lengths
from edge_speech.training.objectives.ctc import ctc_loss
from edge_speech.training.weight_sharing import (
    Choices,
    Supernet,
    extract,
    outline,
    parts_of,
    smallest,
    taken,
)

# The largest, the smallest, and one in between.
NETWORKS = 3


def subnetwork(loaded: LoadedModel, changes: Mapping[str, int]) -> LoadedModel:
    """The network of the changed settings as a model of its own; figures of the largest are not kept.

    Raises InputError for settings that were not trained.
    """
    if not loaded.supernet:
        raise InputError("this model has no sub-networks; train it with a [supernet] section")
    trained = ", ".join(f"{name} {_listed(values)}" for name, values in loaded.supernet.items())
    for name, value in changes.items():
        if value not in loaded.supernet.get(name, ()):
            raise InputError(f"there is no sub-network of {name} = {value}; trained are {trained}")
    model = extract(loaded.architecture, loaded.model, changes)
    metrics = {k: v for k, v in loaded.metrics.items() if not k.startswith("dev_")}
    config = {**loaded.config, **changes}
    return replace(loaded, model=model, config=config, metrics=metrics, quantization={}, supernet={})


def read_changes(text: str) -> dict[str, int]:
    """Settings as a command line gives them: "num_layers=6,conv_kernel=7". Raises InputError."""
    changes = {}
    for one in text.split(","):
        name, _, value = one.partition("=")
        if not value.strip().isascii() or not value.strip().isdecimal():
            raise InputError(f"a sub-network is given as num_layers=6,feed_forward_dim=432, got {text!r}")
        changes[name.strip()] = int(value)
    return changes


def _listed(values: object) -> str:
    return str(values).strip("[]")


def drawn(choices: Choices, number: int) -> dict[str, int]:
    """The network that is drawn as this number, at random."""
    rng = np.random.default_rng(number)
    return {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}


class Sandwich(Objective):
    """Mean of the losses of the largest network, the smallest and a random one.

    How many were drawn is saved with the run: one that resumes draws as one that was not stopped, and the
    processes of a group draw alike.
    """

    count: Tensor

    def __init__(self, objective: Objective, model: Model, architecture: str, how: Supernet) -> None:
        super().__init__()
        self.objective, self.architecture, self.how = objective, architecture, how
        self.error = objective.error
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._said: list[Tensor] = []
        self._networks: dict[tuple[int, ...], _Network] = {}  # made when they are first drawn
        model.register_forward_hook(self._listen)

    def _listen(self, _model: nn.Module, _inputs: object, output: tuple[Tensor, ...]) -> None:
        self._said = [output[0]]

    def forward(self, model: Model, batch: Batch) -> Tensor:
        """See Objective."""
        loss: Tensor = self.objective(model, batch)
        lengths, taught = output_lengths(model, batch), self._said.pop().detach()
        self.count += 1
        for changes in (smallest(self.how.choices), drawn(self.how.choices, int(self.count))):
            log_probs = self._network(model, changes).log_probs(model, batch.features)
            loss = loss + self._of_part(log_probs, taught[:, : log_probs.shape[1]], lengths, batch)
        return loss / NETWORKS

    def _of_part(self, log_probs: Tensor, taught: Tensor, lengths: Tensor, batch: Batch) -> Tensor:
        """CTC of the texts and mean divergence of an utterance's rows from `taught`, both (B, T, V)."""
        of_texts = ctc_loss(log_probs, lengths, batch.targets, batch.target_lengths)
        counts = lengths.to(log_probs.device)
        counted = torch.arange(log_probs.shape[1], device=counts.device) < counts[:, None]
        divergence = functional.kl_div(log_probs.float(), taught.float(), reduction="none", log_target=True)
        of_rows = ((divergence.sum(2) * counted).sum(1) / counts.clamp(min=1)).mean()
        return (1 - self.how.frame_weight) * of_texts + self.how.frame_weight * of_rows

    def _network(self, model: Model, changes: dict[str, int]) -> _Network:
        key = tuple(changes.values())
        if key not in self._networks:
            self._networks[key] = _Network(model, outline(self.architecture, model, changes))
        return self._networks[key]

    def decode(self, model: Model, features: Tensor) -> str:
        """See Objective."""
        return self.objective.decode(model, features)

    def error_rate(self, said: list[str], heard: list[str]) -> float:
        """See Objective."""
        return self.objective.error_rate(said, heard)

    def watched(self, model: Model) -> dict[str, Model]:
        """See Objective."""
        return {"smallest": extract(self.architecture, model, smallest(self.how.choices))}


class _Network:
    """A network without weights of its own."""

    def __init__(self, large: Model, small: Model) -> None:
        self.parallel, self.parts = _Parallel(small), parts_of(large, small)

    def log_probs(self, large: Model, features: Tensor) -> Tensor:
        """features (B, T, F) → log_probs (B, T / 4, V), by the weights of `large` as they are now."""
        freeze_statistics(self.parallel.train(large.training))
        weights = {f"small.{name}": view for name, view in taken(large, self.parts).items()}
        log_probs: Tensor = functional_call(self.parallel, weights, (features,))
        return log_probs


class _Parallel(nn.Module):
    """`parallel` as forward, which is what functional_call calls."""

    def __init__(self, small: Model) -> None:
        super().__init__()
        self.small = small

    def forward(self, features: Tensor) -> Tensor:
        return self.small.parallel(features)
