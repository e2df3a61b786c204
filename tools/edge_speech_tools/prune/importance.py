"""How much each channel of a block matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError

MEASURES = ("magnitude", "activation", "taylor")


class AxisOf(Protocol):
    """Where channels are: an axis of a parameter."""

    @property
    def parameter(self) -> str: ...
    @property
    def axis(self) -> int: ...


Blocks = Mapping[str, Sequence[AxisOf]]


def channels(model: Any, blocks: Blocks, features: Sequence[FloatArray], measure: str) -> dict[str, Tensor]:
    """A score (C,) for each block's channels. Raises InputError.

    `magnitude`: sum of the squared weights. `activation`: mean |x| of what the channel gives, times the norm
    of the weights that read it. `taylor`: (Σ w ∂L/∂w)², a mean over recordings, where L is the likelihood of
    labels drawn from the model's own posteriors (Theis et al. 2018, https://arxiv.org/abs/1801.05787;
    Molchanov et al. 2019, https://arxiv.org/abs/1906.10771): no texts are needed.
    """
    if measure not in MEASURES:
        raise InputError(f"importance is {measure!r}; allowed are {', '.join(MEASURES)}")
    if measure == "magnitude":
        return _summed(blocks, {name: p.detach() ** 2 for name, p in model.named_parameters()})
    if not features:
        raise InputError(f"importance {measure!r} is measured on recordings; give --calibration MANIFEST")
    return (_activation if measure == "activation" else _taylor)(model, blocks, features)


def _summed(blocks: Blocks, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each block the sum over all else of its channels' slices."""
    return {
        block: torch.stack(
            [
                values[a.parameter].transpose(0, a.axis).flatten(1).sum(1)
                if values[a.parameter].ndim > 1
                else values[a.parameter]
                for a in axes
            ]
        ).sum(0)
        for block, axes in blocks.items()
    }


@torch.inference_mode()
def _activation(model: Any, blocks: Blocks, features: Sequence[FloatArray]) -> dict[str, Tensor]:
    readers = {block: _reader(model, axes) for block, axes in blocks.items()}
    sums = {block: torch.zeros(reader.weight.shape[1]) for block, reader in readers.items()}

    def hook(block: str) -> Any:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            sums[block] += inputs[0].abs().flatten(0, -2).sum(0)

        return add

    hooks = [reader.register_forward_pre_hook(hook(block)) for block, reader in readers.items()]
    try:
        for each in features:
            model.parallel(torch.from_numpy(each)[None])
    finally:
        for handle in hooks:
            handle.remove()
    return {block: sums[block] * readers[block].weight.norm(dim=0) for block in sums}


def _reader(model: nn.Module, axes: Sequence[AxisOf]) -> nn.Linear:
    """The Linear layer of a block that reads its channels."""
    name = next(a.parameter for a in axes if a.axis == 1)
    layer = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(layer, nn.Linear)
    return layer


def _taylor(model: Any, blocks: Blocks, features: Sequence[FloatArray]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    parameters = dict(model.named_parameters())
    wanted = sorted({a.parameter for axes in blocks.values() for a in axes})
    total: dict[str, Tensor] = {}
    for each in features:
        log_probs = model.parallel(torch.from_numpy(each)[None])[0]
        labels = torch.multinomial(log_probs.detach().exp(), 1, generator=generator)
        loss = -log_probs.gather(1, labels).sum()
        gradients = torch.autograd.grad(loss, [parameters[name] for name in wanted])
        products = {n: parameters[n].detach() * g for n, g in zip(wanted, gradients, strict=True)}
        for block, score in _summed(blocks, products).items():
            total[block] = total.get(block, torch.zeros_like(score)) + score**2
    return total
