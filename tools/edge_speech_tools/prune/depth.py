"""Fewer layers: those without which log_probs change least are taken out, one after the other.

A layer of an encoder with residual connections can be left out and the rest still works.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools.progress import Progress
from edge_speech_tools.prune.width import rebuilt
from edge_speech_tools.sensitivity import SILENT, divergence, log_probs_of

FIELD = "num_layers"


@dataclass(frozen=True)
class Config:
    """`layers` are left."""

    layers: int


def run(
    loaded: LoadedModel, features: Sequence[FloatArray], config: Config, progress: Progress = SILENT
) -> LoadedModel:
    """Take layers out by their cost on features (T, F) of recordings. Raises InputError."""
    count = loaded.config.get(FIELD, 0)
    stack_of(loaded)
    if not 1 <= config.layers <= count:
        raise InputError(f"{FIELD} cannot become {config.layers}; it is {count}")
    if config.layers < count and not features:
        raise InputError("which layers matter is measured on recordings; give --calibration MANIFEST")
    dense = log_probs_of(loaded.model, loaded.model.spec, features)  # type: ignore[union-attr, arg-type]
    for _ in range(count - config.layers):
        tried = [without(loaded, i) for i in progress.bar(range(loaded.config[FIELD]), "layers")]
        costs = [_cost(one, features, dense) for one in tried]
        loaded = tried[costs.index(min(costs))]
    return loaded


def stack_of(loaded: LoadedModel) -> str:
    """The name of the list of equal layers. Raises InputError where there is none."""
    count = loaded.config.get(FIELD)
    alike = loaded.config.get("dilation_cycle", 1) == 1  # a layer's dilation is that of its place
    for name, module in loaded.model.named_modules():
        if alike and isinstance(module, nn.ModuleList) and len(module) == count and _are_equal(module):
            return str(name)
    raise InputError(f"the layers of this {loaded.architecture} are not alike, so none can be taken out")


def without(loaded: LoadedModel, number: int) -> LoadedModel:
    """The model less layer `number`, counted from 0."""
    pattern = re.compile(re.escape(stack_of(loaded)) + r"\.(\d+)\.(.*)")
    state: dict[str, Tensor] = {}
    for name, value in loaded.model.state_dict().items():
        match = pattern.fullmatch(name)
        if match is None:
            state[name] = value
        elif (place := int(match[1])) != number:
            state[f"{stack_of(loaded)}.{place - (place > number)}.{match[2]}"] = value
    return rebuilt(loaded, {FIELD: loaded.config[FIELD] - 1}, state)


def _are_equal(layers: nn.ModuleList) -> bool:
    shapes = [{n: t.shape for n, t in layer.state_dict().items()} for layer in layers]
    return all(one == shapes[0] for one in shapes)


def _cost(loaded: LoadedModel, features: Sequence[FloatArray], dense: list[Tensor]) -> float:
    """Mean divergence of a row from the dense model's, in nats."""
    with torch.inference_mode():
        found = log_probs_of(loaded.model, loaded.model.spec, features)  # type: ignore[union-attr, arg-type]
    return divergence(dense, found).mean_kl
