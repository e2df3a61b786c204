"""Fewer layers: those without which log_probs change least are taken out, one choice after the other.

A layer of an encoder with residual connections can be left out and the rest still works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training.channels import LayerStack
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools.progress import Progress
from edge_speech_tools.prune.width import rebuilt, settings_of
from edge_speech_tools.sensitivity import SILENT, divergence, log_probs_of

# In `metrics`: the numbers that the layers left had before.
KEPT = "kept_layers"


@dataclass(frozen=True)
class Config:
    """`layers` are left, by the setting of the stack."""

    layers: int


def run(
    loaded: LoadedModel, features: Sequence[FloatArray], config: Config, progress: Progress = SILENT
) -> LoadedModel:
    """Take layers out by their cost on features (T, F) of recordings. Raises InputError."""
    stack, count = stack_of(loaded), layers_of(loaded)
    if not 1 <= config.layers <= count:
        raise InputError(f"{stack.setting} cannot become {config.layers}; it is {count}")
    if config.layers < count and not features:
        raise InputError("which layers matter is measured on recordings; give --calibration MANIFEST")
    dense = rows_of(loaded, features)
    while (most := layers_of(loaded) - config.layers) > 0:
        fitting = [gone for gone in stack_of(loaded).removable if len(gone) <= most]
        tried = [without(loaded, gone) for gone in progress.bar(fitting, "layers")]
        costs = [mean_kl(dense, one, features) / len(gone) for one, gone in zip(tried, fitting, strict=True)]
        loaded = tried[costs.index(min(costs))]
    return loaded


def stack_of(loaded: LoadedModel) -> LayerStack:
    """The layers that can be left out. Raises InputError where there are none."""
    stack: LayerStack | None = loaded.model.layer_stack()  # type: ignore[operator, union-attr]
    if stack is None or not stack.removable:
        raise InputError(f"no layer of this {loaded.architecture} can be taken out; the others need each")
    return stack


def layers_of(loaded: LoadedModel) -> int:
    """How many layers there are, by the setting of the stack."""
    return int(settings_of(loaded)[stack_of(loaded).setting])


def without(loaded: LoadedModel, gone: Sequence[int]) -> LoadedModel:
    """The model less the layers with the numbers `gone`."""
    stack = stack_of(loaded)
    numbers = [stack.number_in(name) for name in loaded.model.state_dict()]
    present = sorted({n for n in numbers if n is not None})
    left = [n for n in present if n not in gone]
    place = {old: present[i] for i, old in enumerate(left)}
    state: dict[str, Tensor] = {}
    for (name, value), number in zip(loaded.model.state_dict().items(), numbers, strict=True):
        if number is None:
            state[name] = value
        elif number in place:
            state[stack.renumbered(name, place[number])] = value
    changed = rebuilt(loaded, {stack.setting: layers_of(loaded) - len(gone)}, state)
    before = loaded.metrics.get(KEPT, present)
    kept = [before[present.index(n)] for n in left]
    return replace(changed, metrics={**changed.metrics, KEPT: kept})


@torch.inference_mode()
def rows_of(loaded: LoadedModel, features: Sequence[FloatArray]) -> list[Tensor]:
    """log_probs (rows, V) of each recording."""
    return log_probs_of(loaded.model, loaded.model.spec, features)  # type: ignore[union-attr, arg-type]


def mean_kl(dense: list[Tensor], loaded: LoadedModel, features: Sequence[FloatArray]) -> float:
    """Mean divergence of a row from the dense model's, in nats."""
    return divergence(dense, rows_of(loaded, features)).mean_kl
