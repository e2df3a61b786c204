"""Zeros in the weights that matter least: shapes stay, and so does the time where hardware skips no zeros."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel

_N_OF_M = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Config:
    """`sparsity` is "2:4" (of four weights along the input two stay) or a fraction of all weights, "0.5"."""

    sparsity: str


def run(loaded: LoadedModel, config: Config) -> LoadedModel:
    """Zero weights of the Linear layers, in place. Raises InputError."""
    layers = [m for m in loaded.model.modules() if isinstance(m, nn.Linear)]
    match = _N_OF_M.fullmatch(config.sparsity)
    if match is None:
        _unstructured(layers, _fraction(config.sparsity))
    else:
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept < of <= 64:
            raise InputError(f"sparsity is {config.sparsity}; N:M needs 0 < N < M, such as 2:4")
        for layer in layers:
            _keep_n_of_m(layer, kept, of)
    return replace(loaded, quantization={})


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise InputError(f"sparsity is {text!r}; allowed are N:M, such as 2:4, or a fraction between 0 and 1")
    return value


def _unstructured(layers: list[nn.Linear], amount: float) -> None:
    """The smallest weights of all layers together."""
    prune.global_unstructured(  # type: ignore[no-untyped-call]
        [(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=amount
    )
    for layer in layers:
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]


@torch.no_grad()
def _keep_n_of_m(layer: nn.Linear, kept: int, of: int) -> None:
    """Groups along the input; a last group that is not whole stays dense."""
    outputs, inputs = layer.weight.shape
    whole = inputs - inputs % of
    groups: Tensor = layer.weight[:, :whole].reshape(outputs, -1, of)
    largest = groups.abs().topk(kept, dim=2).indices
    mask = torch.zeros_like(groups).scatter_(2, largest, 1.0)
    layer.weight[:, :whole] = (groups * mask).reshape(outputs, whole)
