"""Which axes of which parameters hold what a setting counts: channels, heads, layers.

Architectures declare it themselves, each part where its layers are made; pruning reads it. A declaration is
right when the channels of any group can change places and the model computes what it did, and complete when
no other axis follows the setting: both are tested for every architecture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

# The setting for the width that residual connections carry through the whole model.
RESIDUAL = "d_model"


@dataclass(frozen=True)
class Axis:
    """Where channels lie along `axis` of a parameter or buffer.

    From `start` on there are `blocks` stretches, one after the other (the halves of a gate, the four gates of
    an LSTM); in each every channel has `run` neighbouring places (a head's dimensions).
    """

    parameter: str
    axis: int
    blocks: int = 1
    run: int = 1
    start: int = 0

    def places(self, count: int) -> Tensor:
        """Indices along the axis of each of `count` channels, (count, blocks · run)."""
        grid = torch.arange(self.blocks * count * self.run) + self.start
        return grid.view(self.blocks, count, self.run).transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class Group:
    """Axes whose channels belong together: channel i of one is channel i of all.

    The product of the parameters in `rooted` is divided by the root of the number of channels.
    """

    axes: tuple[Axis, ...]
    rooted: tuple[str, ...] = ()

    def within(self, part: str) -> Group:
        """The group of a part as the model that has it names it."""
        axes = tuple(replace(axis, parameter=_join(part, axis.parameter)) for axis in self.axes)
        return Group(axes, tuple(_join(part, name) for name in self.rooted))


@dataclass(frozen=True)
class LayerStack:
    """Layers of which some can be left out. `setting` counts them.

    `pattern` finds the number of a layer in the names of its parameters (one regex group); `removable` are
    the numbers of layers that can go together, so that those left fit their places.
    """

    pattern: str
    removable: tuple[tuple[int, ...], ...]
    setting: str = "num_layers"

    def number_in(self, name: str) -> int | None:
        """The number of the layer that a parameter is of, None where it is of none."""
        match = re.match(self.pattern, name)
        return int(match[1]) if match else None

    def renumbered(self, name: str, number: int) -> str:
        """The name of the same parameter of the layer `number`."""
        match = re.match(self.pattern, name)
        assert match is not None
        return f"{name[: match.start(1)]}{number}{name[match.end(1) :]}"


class HasChannels:
    """A module that declares axes by the names of its own parameters."""

    def own_channels(self) -> dict[str, list[Group]]:
        """By setting: the groups of channels that are all in this module, each with its own order."""
        return {}

    def residual(self) -> list[Axis]:
        """The axes that the width of the residual connections runs through."""
        return []


def declared(model: nn.Module) -> dict[str, list[Group]]:
    """By setting: the groups that the parts of `model` declare, and one of the residual width."""
    found: dict[str, list[Group]] = defaultdict(list)
    carried: list[Axis] = []
    for name, part in model.named_modules():
        if isinstance(part, HasChannels):
            for setting, groups in part.own_channels().items():
                found[setting] += [group.within(name) for group in groups]
            carried += Group(tuple(part.residual())).within(name).axes
    if carried:
        found[RESIDUAL].append(Group(tuple(carried)))
    return dict(found)


def giving(*layers: str, blocks: int = 1, run: int = 1, start: int = 0) -> list[Axis]:
    """Where Linear layers or convolutions give channels: weight and bias."""
    return [Axis(f"{one}.{p}", 0, blocks, run, start) for one in layers for p in ("weight", "bias")]


def reading(*layers: str, run: int = 1, start: int = 0) -> list[Axis]:
    """Where Linear layers or convolutions read channels."""
    return [Axis(f"{one}.weight", 1, run=run, start=start) for one in layers]


def batch_norm(*layers: str) -> list[Axis]:
    """All that a batch norm holds of each channel."""
    kept = ("weight", "bias", "running_mean", "running_var")
    return [Axis(f"{one}.{p}", 0) for one in layers for p in kept]


def group(*axes: Iterable[Axis], rooted: Iterable[str] = ()) -> Group:
    """One group of the axes of several layers."""
    return Group(tuple(axis for some in axes for axis in some), tuple(rooted))


def _join(part: str, name: str) -> str:
    return f"{part}.{name}" if part else name
