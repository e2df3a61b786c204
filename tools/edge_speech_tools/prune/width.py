"""Narrower: of every group of channels that a setting counts, those that matter least are taken out.

Which axes of which parameters hold the channels is what the architecture declares (`training/channels.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.channels import Group
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools.prune import importance


@dataclass(frozen=True)
class Config:
    """`width` channels are left of what `setting` counts; `importance` is one of `importance.MEASURES`."""

    setting: str
    width: int
    importance: str = "taylor"


def run(loaded: LoadedModel, features: Sequence[FloatArray], config: Config) -> LoadedModel:
    """Take channels out. features (T, F) of recordings are for the importance. Raises InputError."""
    counted = counted_groups(loaded, config.setting)
    count = counted[0][1]
    if not 1 <= config.width <= count:
        raise InputError(f"{config.setting} cannot become {config.width}; it is {count}")
    scores = importance.channels(loaded.model, counted, features, config.importance)
    return narrowed(loaded, config.setting, config.width, scores)


def counted_groups(loaded: LoadedModel, setting: str) -> list[tuple[Group, int]]:
    """The groups of a setting, and how many channels each has. Raises InputError where there are none."""
    groups = loaded.model.channels().get(setting)  # type: ignore[operator, union-attr]
    if not groups:
        raise InputError(f"a {loaded.architecture} has no {setting} to prune")
    return [(group, settings_of(loaded)[setting]) for group in groups]


def narrowed(loaded: LoadedModel, setting: str, width: int, scores: Sequence[Tensor]) -> LoadedModel:
    """The model with those `width` channels of every group that have the highest of `scores` (C,)."""
    state, counted = dict(loaded.model.state_dict()), counted_groups(loaded, setting)
    gone: dict[tuple[str, int], list[Tensor]] = defaultdict(list)
    for (group, count), score in zip(counted, scores, strict=True):
        least = score.argsort(descending=True, stable=True)[width:]
        for axis in group.axes:
            gone[axis.parameter, axis.axis].append(axis.places(count)[least].flatten())
    for (name, dimension), places in gone.items():
        left = torch.ones(state[name].shape[dimension], dtype=torch.bool)
        left[torch.cat(places)] = False
        state[name] = state[name].index_select(dimension, left.nonzero()[:, 0]).contiguous()
    for name in {name for group, _ in counted for name in group.rooted}:
        state[name] = state[name] * math.sqrt(width / counted[0][1])
    return rebuilt(loaded, {setting: width}, state)


def settings_of(loaded: LoadedModel) -> dict[str, Any]:
    """The config, with the settings written out that follow from others."""
    return {**models.config_of(loaded.model), **loaded.model.config.derived()}


def rebuilt(loaded: LoadedModel, changes: dict[str, Any], state: dict[str, Tensor]) -> LoadedModel:
    """A model of the changed config with the weights in `state`; scales and dev figures are not kept."""
    config = {**settings_of(loaded), **changes}
    model = models.build(loaded.architecture, config)
    model.load_state_dict(state)
    model.eval()
    metrics = {k: v for k, v in loaded.metrics.items() if not k.startswith("dev_")}
    return LoadedModel(model, loaded.tokens, loaded.frontend, loaded.architecture, config, metrics)
