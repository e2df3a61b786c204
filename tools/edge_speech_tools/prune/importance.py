"""How much each channel matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training.channels import Axis, Group

MEASURES = ("magnitude", "activation", "taylor")
# A group of channels, and how many there are.
Counted = tuple[Group, int]


def channels(
    model: Any, groups: Sequence[Counted], features: Sequence[FloatArray], measure: str
) -> list[Tensor]:
    """A score (C,) for each group's channels, from features (T, F) of recordings. Raises InputError.

    `magnitude`: sum of the squared weights. `activation`: mean |x| of what the channel gives, times the norm
    of the weights that read it; what scores of attention sum over is read by none, and counts as mean |query|
    times mean |key|. `taylor`: (Σ w ∂L/∂w)², a mean over recordings, where L is the likelihood of
    labels drawn from the model's own posteriors (Theis et al. 2018, https://arxiv.org/abs/1801.05787;
    Molchanov et al. 2019, https://arxiv.org/abs/1906.10771): no texts are needed.
    """
    if measure not in MEASURES:
        raise InputError(f"importance is {measure!r}; allowed are {', '.join(MEASURES)}")
    if measure == "magnitude":
        return _summed(groups, {name: p.detach() ** 2 for name, p in model.named_parameters()})
    if not features:
        raise InputError(f"importance {measure!r} is measured on recordings; give --calibration MANIFEST")
    return (_activation if measure == "activation" else _taylor)(model, groups, features)


def _summed(groups: Iterable[Counted], values: Mapping[str, Tensor]) -> list[Tensor]:
    """For each group the sum over all else of its channels' slices; of buffers there are no values."""

    def of(axis: Axis, count: int) -> Tensor:
        slices = values[axis.parameter].movedim(axis.axis, 0)
        return slices.reshape(len(slices), -1).sum(1)[axis.places(count)].sum(1)

    return [
        torch.stack([of(axis, count) for axis in group.axes if axis.parameter in values]).sum(0)
        for group, count in groups
    ]


@torch.inference_mode()
def _activation(model: Any, groups: Sequence[Counted], features: Sequence[FloatArray]) -> list[Tensor]:
    given = {name for group, _ in groups for name in _scored(group)}
    read = {axis.parameter for group, _ in groups for axis in _reading(group)}
    sizes = _sizes(model, given, read, features)
    found = []
    for group, count in groups:
        values = torch.ones(count)
        for name in _scored(group):
            axis = next(a for a in group.axes if a.parameter == name)
            values = values * sizes["given", name][axis.places(count)].sum(1)
        for i, axis in enumerate(_reading(group)):
            weight = model.get_parameter(axis.parameter).movedim(1, 0)
            by_place = sizes["read", axis.parameter] * weight.reshape(len(weight), -1).norm(dim=1)
            one = by_place[axis.places(count)].sum(1)
            values = values + one if i else one
        found.append(values)
    return found


def _reading(group: Group) -> list[Axis]:
    return [axis for axis in group.axes if axis.axis == 1]


def _scored(group: Group) -> list[str]:
    """The weights that give channels which no other weight reads: they multiply each other."""
    if _reading(group):
        return []
    return [axis.parameter for axis in group.axes if axis.parameter.endswith("weight")]


def _sizes(
    model: Any, given: set[str], read: set[str], features: Sequence[FloatArray]
) -> dict[tuple[str, str], Tensor]:
    """The sum over recordings of the mean |x| of each channel (C,) that a weight has `given` or `read`."""
    found: dict[tuple[str, str], Tensor] = {}

    def add(key: tuple[str, str], x: Tensor) -> None:
        found[key] = found.get(key, torch.zeros(())) + x.abs().flatten(0, -2).mean(0)

    def hook(name: str) -> Any:
        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for weight, x in _channels_last(layer, inputs[0]).items():
                add(("read", f"{name}.{weight}"), x)
            if f"{name}.weight" in given:
                add(("given", f"{name}.weight"), output)

        return note

    names = sorted({name.rpartition(".")[0] for name in given | read})
    hooks = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        for each in features:
            model.parallel(torch.from_numpy(each)[None])
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _channels_last(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each weight of a layer multiplies (…, C), when the layer gets x."""
    if isinstance(layer, nn.RNNBase):
        return _recurrent(layer, x)
    return {"weight": x if isinstance(layer, nn.Linear) else x.movedim(1, -1)}


def _recurrent(layers: nn.RNNBase, x: Tensor) -> dict[str, Tensor]:
    """x (B, T, D), of recurrent layers one by one, as torch gives only what the last of them gives."""
    found = {}
    for i in range(layers.num_layers):
        one = type(layers)(x.shape[2], layers.hidden_size, batch_first=True)  # type: ignore[call-arg, arg-type]
        kept = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        one.load_state_dict({f"{name}_l0": getattr(layers, f"{name}_l{i}") for name in kept})
        found[f"weight_ih_l{i}"] = x
        x = one(x)[0]
        found[f"weight_hh_l{i}"] = x
    return found


def _taylor(model: Any, groups: Sequence[Counted], features: Sequence[FloatArray]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = dict(model.named_parameters())
    names = {axis.parameter for group, _ in groups for axis in group.axes}
    wanted = sorted(names & set(parameters))
    total = [torch.zeros(count) for _, count in groups]
    for each in features:
        log_probs = model.parallel(torch.from_numpy(each)[None])[0]
        labels = torch.multinomial(log_probs.detach().exp(), 1, generator=generator)
        loss = -log_probs.gather(1, labels).sum()
        gradients = torch.autograd.grad(loss, [parameters[name] for name in wanted])
        products = {n: parameters[n].detach() * g for n, g in zip(wanted, gradients, strict=True)}
        total = [sum_ + score**2 for sum_, score in zip(total, _summed(groups, products), strict=True)]
    return total
