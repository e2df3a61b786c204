"""A small model whose weights are part of a large one's: some of its layers, channels and taps.

The settings in which the two may differ are `FIELDS`. Of channels the first stay, of a convolution's taps the
last, since they hear the newest frames, and of a stack of layers those that stand evenly spaced in it, the
first and the last among them: Slimmable Networks, Yu et al. 2018, https://arxiv.org/abs/1812.08928, and
Once-for-All, Cai et al. 2019, https://arxiv.org/abs/1908.09791.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.channels import LayerStack
from edge_speech.training.models import Model

DEPTH, WIDTHS, KERNELS = "num_layers", ("feed_forward_dim", "expansion"), ("conv_kernel", "kernel")
# What a channel of any other width does depends on how many there are: heads, gates and state are cut by it.
FIELDS = (DEPTH, *WIDTHS, *KERNELS)
MAX_CHOICES = 16

Choices = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Supernet:
    """A recipe's [supernet]: settings of `model` in which networks that share its weights differ.

    The largest of each list is the model's own. `frame_weight` is the share of the divergence from what the
    largest network says in the loss of the others; the texts have what is left.
    """

    num_layers: tuple[int, ...] = ()
    feed_forward_dim: tuple[int, ...] = ()
    expansion: tuple[int, ...] = ()
    conv_kernel: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    frame_weight: float = 0.5

    def __post_init__(self) -> None:
        if all(len(values) < 2 for values in self.choices.values()):
            raise InputError("recipe: [supernet] has nothing to choose; for example num_layers = [4, 6, 8]")
        if not 0 <= self.frame_weight <= 1:
            raise InputError(f"recipe: supernet.frame_weight is {self.frame_weight}; allowed: from 0 to 1")

    @property
    def choices(self) -> dict[str, list[int]]:
        """The lists that are not empty, each ascending."""
        lists = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "frame_weight"}
        return {name: sorted(values) for name, values in lists.items() if values}


@dataclass(frozen=True)
class Part:
    """Where a tensor of the small model lies: in the large one's `name`, and there along each axis."""

    name: str
    where: tuple[slice, ...]


def check_choices(architecture: str, config: Mapping[str, Any], choices: Choices) -> None:
    """Raises InputError where models of `choices` cannot share the weights of one of `config`.

    `choices` may come from a stranger: nothing is allocated for them.
    """
    if not isinstance(choices, Mapping):
        raise InputError(f"supernet is {type(choices).__name__}, not a table of settings")
    if choices and architecture in models.OFFLINE:
        raise InputError(f"supernet is for models that stream, not {architecture}")
    for name, values in choices.items():
        if name not in FIELDS or name not in config:
            can = ", ".join(field for field in FIELDS if field in config) or "nothing"
            raise InputError(f"supernet has {str(name)[:60]!r}; of a {architecture} {can} can vary")
        if not isinstance(values, (list, tuple)) or not 1 <= len(values) <= MAX_CHOICES:
            raise InputError(f"supernet.{name} must be a list of 1 to {MAX_CHOICES} whole numbers")
        whole = all(type(value) is int and value >= 1 for value in values)
        if not whole or list(values) != sorted(set(values)) or values[-1] != config[name]:
            raise InputError(
                f"supernet.{name} is {str(list(values))[:60]}; allowed: whole numbers from 1, each once and "
                f"ascending, the last the model's own {config[name]}"
            )
    small = _outline(architecture, {**config, **smallest(choices)})
    if len(choices.get(DEPTH, ())) > 1:
        stack_of(small)


def smallest(choices: Choices) -> dict[str, int]:
    """The least of everything."""
    return {name: values[0] for name, values in choices.items()}


def kept_layers(count: int, of: int) -> list[int]:
    """Places of `count` layers, evenly spaced in a stack `of` so many, the first and the last among them."""
    return [round(i * (of - 1) / max(1, count - 1)) for i in range(count)]


def stack_of(model: Model) -> LayerStack:
    """The layers, of which any can be left out. Raises InputError where some cannot."""
    stack: LayerStack | None = model.layer_stack()  # type: ignore[operator]
    if stack is None or [*stack.removable] != [(i,) for i in range(models.config_of(model)[DEPTH])]:
        kind = type(model).__name__
        raise InputError(f"supernet.{DEPTH} cannot vary: the layers of this {kind} are not alike")
    return stack


def parts_of(large: Model, small: Model) -> dict[str, Part]:
    """For each parameter and buffer of `small` where it lies in `large`."""
    whole, layers = large.state_dict(), dict(large.named_modules())
    names = _names(large, small)
    return {
        name: Part(names[name], _where(layers, names[name], value.shape, whole[names[name]].shape))
        for name, value in small.state_dict().items()
    }


def _names(large: Model, small: Model) -> dict[str, str]:
    """The name in `large` of each tensor of `small`."""
    count, of = (models.config_of(model).get(DEPTH, 0) for model in (small, large))
    if count == of:
        return {name: name for name in small.state_dict()}
    stack, kept = stack_of(large), kept_layers(count, of)
    numbers = {name: stack.number_in(name) for name in small.state_dict()}
    return {name: name if n is None else stack.renumbered(name, kept[n]) for name, n in numbers.items()}


def _where(
    layers: Mapping[str, nn.Module], name: str, shape: Sequence[int], whole: Sequence[int]
) -> tuple[slice, ...]:
    layer = layers[name.rpartition(".")[0]]
    first_tap = 2 if isinstance(layer, _ConvNd) else len(whole)
    return tuple(
        slice(None) if size == of else slice(of - size, of) if axis >= first_tap else slice(size)
        for axis, (size, of) in enumerate(zip(shape, whole, strict=True))
    )


def taken(large: Model, parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Views of the large model's own parameters and buffers, through which gradients flow into them."""
    whole = {**dict(large.named_parameters()), **dict(large.named_buffers())}
    return {name: whole[part.name][part.where] for name, part in parts.items()}


def extract(architecture: str, large: Model, changes: Mapping[str, int]) -> Model:
    """A model of its own of the changed settings, in eval mode, with copies of its part of the weights."""
    small = outline(architecture, large, changes)
    copies = {name: view.detach().clone() for name, view in taken(large, parts_of(large, small)).items()}
    small.load_state_dict(copies, assign=True)
    return small.eval()


def outline(architecture: str, large: Model, changes: Mapping[str, int]) -> Model:
    """The model of the changed settings without weights. Raises InputError."""
    return _outline(architecture, {**models.config_of(large), **changes})


def _outline(architecture: str, config: dict[str, Any]) -> Model:
    with torch.device("meta"):
        return models.build(architecture, config)


@torch.no_grad()
def sort_channels(architecture: str, model: Model, choices: Choices, batches: Iterable[Tensor]) -> None:
    """Put the channels of each block that matter most first, on features (B, T, F); what is computed stays.

    A channel matters by the mean |x| that it gives times the norm of the weights that read it.
    """
    varied = [name for name in WIDTHS if len(choices.get(name, ())) > 1]
    blocks = [axes for name in varied for axes in _blocks(architecture, model, name, choices[name][0])]
    readers = [model.get_submodule(_reader(axes)) for axes in blocks]
    heard = _mean_sizes(model.eval(), readers, batches)
    whole = model.state_dict()
    for axes, layer, size in zip(blocks, readers, heard, strict=True):
        order = (size * layer.weight.norm(dim=0)).argsort(descending=True)  # type: ignore[operator, union-attr]
        for name, axis in axes:
            whole[name].copy_(whole[name].index_select(axis, order))


def _blocks(architecture: str, model: Model, name: str, least: int) -> list[list[tuple[str, int]]]:
    """The tensors and their axes that hold the channels of one setting, by block."""
    blocks: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for part in parts_of(model, outline(architecture, model, {name: least})).values():
        for axis, where in enumerate(part.where):
            if where != slice(None):
                blocks[part.name.rsplit(".", 2)[0]].append((part.name, axis))
    return list(blocks.values())


def _reader(axes: Sequence[tuple[str, int]]) -> str:
    """The layer of a block that reads its channels."""
    return next(name.rpartition(".")[0] for name, axis in axes if axis == 1)


def _mean_sizes(model: Model, readers: Sequence[nn.Module], batches: Iterable[Tensor]) -> list[Tensor]:
    """Mean |x| (C,) of what each layer reads, over rows."""
    found: list[list[Tensor]] = [[] for _ in readers]

    def listen(number: int) -> Any:
        return lambda _, inputs: found[number].append(inputs[0].abs().flatten(0, -2).mean(0))

    hooks = [layer.register_forward_pre_hook(listen(i)) for i, layer in enumerate(readers)]
    try:
        for features in batches:
            model.parallel(features)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.stack(sizes).mean(0) for sizes in found]
