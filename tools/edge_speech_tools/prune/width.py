"""Narrower feed-forward layers: in each block the channels that matter least are taken out.

Which axes of which parameters hold the channels is not written down for each architecture: a model is built
at two widths, and the axes that differ are those. Channels of one block are its own; what is carried from
block to block keeps its width.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools.prune import importance

FIELD = "feed_forward_dim"


@dataclass(frozen=True)
class Config:
    """`width` channels are left in each block; `importance` is one of `importance.MEASURES`."""

    width: int
    importance: str = "taylor"


@dataclass(frozen=True)
class Axis:
    """An axis of a parameter that holds a block's channels."""

    parameter: str
    axis: int


def run(loaded: LoadedModel, features: Sequence[FloatArray], config: Config) -> LoadedModel:
    """Take channels out. features (T, F) of recordings are for the importance. Raises InputError."""
    blocks = blocks_of(loaded)
    if not 1 <= config.width <= loaded.config[FIELD]:
        raise InputError(f"{FIELD} cannot become {config.width}; it is {loaded.config[FIELD]}")
    scores = importance.channels(loaded.model, blocks, features, config.importance)
    state = dict(loaded.model.state_dict())
    for name, axes in blocks.items():
        kept = scores[name].topk(config.width).indices.sort().values
        for one in axes:
            state[one.parameter] = state[one.parameter].index_select(one.axis, kept).contiguous()
    return rebuilt(loaded, {FIELD: config.width}, state)


def blocks_of(loaded: LoadedModel) -> dict[str, list[Axis]]:
    """The axes that hold feed-forward channels, by block. Raises InputError where there are none."""
    if FIELD not in loaded.config:
        raise InputError(f"a {loaded.architecture} has no {FIELD} to prune")
    wide, narrow = loaded.config[FIELD], loaded.config[FIELD] - 1
    if narrow < 1:
        raise InputError(f"{FIELD} is {wide}; there is nothing left to prune")
    other = _shapes(loaded.architecture, {**loaded.config, FIELD: narrow})
    blocks: dict[str, list[Axis]] = defaultdict(list)
    for name, shape in _shapes(loaded.architecture, loaded.config).items():
        for axis, sizes in enumerate(zip(shape, other[name], strict=True)):
            if sizes == (wide, narrow):
                blocks[name.rsplit(".", 2)[0]].append(Axis(name, axis))
            elif sizes[0] != sizes[1]:
                raise InputError(f"axis {axis} of {name} is {sizes[0]} for a {FIELD} of {wide}")
    return dict(blocks)


def rebuilt(loaded: LoadedModel, changes: dict[str, Any], state: dict[str, Tensor]) -> LoadedModel:
    """A model of the changed config with the weights in `state`; scales and dev figures are not kept."""
    config = {**loaded.config, **changes}
    model = models.build(loaded.architecture, config)
    model.load_state_dict(state)
    model.eval()
    metrics = {k: v for k, v in loaded.metrics.items() if not k.startswith("dev_")}
    return LoadedModel(model, loaded.tokens, loaded.frontend, loaded.architecture, config, metrics)


def _shapes(architecture: str, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model: nn.Module = models.build(architecture, config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
