"""What quantising each layer costs, and which layers to put back so that a budget of words holds.

A layer is fake-quantised alone, everything else in fp32, over whole recordings. Costs of layers do not add up
exactly, so the search that follows them measures what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech.training.fake_quantization import fake_quantized
from edge_speech.training.scales import Scales
from edge_speech_tools.progress import Progress
from edge_speech_tools.reference import single_thread
from edge_speech_tools.streaming import windows

SILENT = Progress(quiet=True)
# Recordings at once: four take a third less time than one by one, more than four gain little.
BATCH = 4


@dataclass(frozen=True)
class Divergence:
    """How far log_probs are from those of fp32.

    `mean_kl` is the divergence of the rows' distributions from those of fp32, in nats, a mean over rows, and
    `mean_abs` the mean of |Δ log_prob| over rows and tokens. Both are infinite where a value is not finite.
    """

    mean_kl: float
    mean_abs: float


@dataclass(frozen=True)
class LayerCost:
    """What quantising one layer alone does to log_probs (see `Divergence`), and what the layer is.

    `operations` are the multiply-adds of one encoder step.
    """

    name: str
    divergence: float
    mean_abs: float
    parameters: int
    operations: int


@dataclass(frozen=True)
class Fallback:
    """Layers to leave in higher precision, and the WER that quantising the others adds, in points.

    `measured` has every WER that the search asked for, by how many layers of its order were put back.
    """

    names: tuple[str, ...]
    wer_added: float
    measured: Mapping[int, float]


def layer_costs(
    model: nn.Module,
    spec: StreamingSpec,
    scales: Scales,
    features: Sequence[FloatArray],
    progress: Progress = SILENT,
) -> list[LayerCost]:
    """The cost of every layer in `scales`, over features (T, F) of whole recordings, the costliest first.

    `model` is as it was afterwards. Raises InputError without features or where the scales do not fit.
    """
    if not sum(map(len, features)):
        raise InputError("sensitivity is measured on recordings; give at least one that is not empty")
    with single_thread():
        reference = log_probs_of(model, spec, features)
        operations = layer_operations(model, spec)
        costs = []
        for name in progress.bar(list(scales), "layers"):
            with fake_quantized(model, {name: scales[name]}):
                found = divergence(reference, log_probs_of(model, spec, features))
            layer = model.get_submodule(name)
            count = sum(p.numel() for p in layer.parameters())
            costs.append(LayerCost(name, found.mean_kl, found.mean_abs, count, operations.get(name, 0)))
    return sorted(costs, key=lambda cost: -cost.divergence)


@torch.inference_mode()
def log_probs_of(model: Any, spec: StreamingSpec, features: Iterable[FloatArray]) -> list[Tensor]:
    """log_probs (rows, V) of each recording's features (T, F), in parallel where the model can.

    Recordings without frames are left out.
    """
    heard = [torch.from_numpy(each) for each in features if len(each)]
    if not hasattr(model, "parallel"):
        return [_streamed(model, spec, each.numpy()) for each in heard]
    found: dict[int, Tensor] = {}
    by_length = sorted(range(len(heard)), key=lambda i: len(heard[i]))
    for start in range(0, len(heard), BATCH):
        numbers = by_length[start : start + BATCH]
        found |= zip(numbers, _parallel(model, spec, [heard[i] for i in numbers]), strict=True)
    return [found[i] for i in range(len(heard))]


def _parallel(model: Any, spec: StreamingSpec, features: list[Tensor]) -> list[Tensor]:
    """Padded as a stream is at its end, which changes no row that counts."""
    log_probs = model.parallel(pad_sequence(features, batch_first=True, padding_value=spec.padding_value))
    return [
        rows[: -(-len(each) // spec.subsampling_factor)]
        for rows, each in zip(log_probs, features, strict=True)
    ]


def _streamed(model: Any, spec: StreamingSpec, features: FloatArray) -> Tensor:
    state, rows = model.initial_state(1), []
    for window in windows(features, spec):
        log_probs, *state = model(torch.from_numpy(window), *state)
        rows.append(log_probs[0])
    return torch.cat(rows)[: -(-len(features) // spec.subsampling_factor)]


def divergence(reference: Sequence[Tensor], found: Sequence[Tensor]) -> Divergence:
    """Of log_probs (rows, V) of the same recordings."""
    wants, gots = torch.cat(list(reference)).double(), torch.cat(list(found)).double()
    difference = wants - gots
    kl, mean_abs = (wants.exp() * difference).sum(1).mean().item(), difference.abs().mean().item()
    if not gots.isfinite().all():
        return Divergence(float("inf"), float("inf"))
    return Divergence(max(0.0, kl), mean_abs)


@torch.inference_mode()
def layer_operations(model: Any, spec: StreamingSpec) -> dict[str, int]:
    """Multiply-adds of each Linear and convolution in one encoder step."""
    counts: dict[str, int] = {}

    def hook(name: str) -> Callable[[Any, Any, Tensor], None]:
        def count(layer: Any, _: Any, output: Tensor) -> None:
            counts[name] = counts.get(name, 0) + output.numel() * layer.weight[0].numel()

        return count

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
    named = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    hooks = [layer.register_forward_hook(hook(name)) for name, layer in named]
    try:
        model(torch.zeros(1, spec.window_frames, spec.num_features), *model.initial_state(1))
    finally:
        for handle in hooks:
            handle.remove()
    return counts


def by_value(costs: Iterable[LayerCost], step_ms: Mapping[str, float] | None = None) -> list[str]:
    """Names in the order to put layers back: most divergence per millisecond given up first.

    `step_ms` has how much longer a step takes with the layer put back; without it operations stand for time.
    Raises InputError where it lacks a layer.
    """
    costs = list(costs)
    if step_ms is not None and (missing := [c.name for c in costs if c.name not in step_ms]):
        raise InputError(f"there is no time for {missing[0]}; give one for each layer, or none at all")
    price = {c.name: float(c.operations) if step_ms is None else step_ms[c.name] for c in costs}
    least = min((p for p in price.values() if p > 0), default=1.0)  # what costs no time is not worth infinity
    return [c.name for c in sorted(costs, key=lambda c: -c.divergence / max(price[c.name], least))]


def keep_within(budget: float, order: Sequence[str], wer_added: Callable[[Sequence[str]], float]) -> Fallback:
    """The first layers of `order` to put back for `wer_added(names put back)` to be within `budget`.

    WER is in points. It is taken to fall as more layers are put back: one, two, four … until it holds, then
    bisection between the last two; what is returned was measured and holds. Raises CheckFailed where it does
    not hold with all of them put back.
    """
    measured: dict[int, float] = {}

    def holds(count: int) -> bool:
        measured[count] = wer_added(order[:count])
        return measured[count] <= budget

    failing, count = -1, 0
    while not holds(count):
        if count == len(order):
            raise CheckFailed(
                f"WER is {measured[count]:.2f} points over fp32 with all {count} quantised layers put back; "
                f"the budget is {budget:.2f}: something else than the rounding of layers costs it"
            )
        failing, count = count, min(max(1, 2 * count), len(order))
    while count - failing > 1:
        middle = (failing + count) // 2
        failing, count = (failing, middle) if holds(middle) else (middle, count)
    return Fallback(tuple(order[:count]), measured[count], measured)
