"""Scales of a model's layers, measured on recordings as a device hears them: a stream, the state carried."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
import torch
from torch import nn

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.errors import InputError
from edge_speech.features import FrontendConfig, features_of
from edge_speech.training.chunked import ChunkedModel
from edge_speech.training.scales import LayerScales, Scales, input_scales, weight_scales
from edge_speech_tools import histogram
from edge_speech_tools.histogram import Histogram
from edge_speech_tools.passes import Source
from edge_speech_tools.recordings import Recording, at_rate
from edge_speech_tools.streaming import windows

METHODS = ("min-max", "percentile", "entropy", "mse")
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
GIVE_RECORDINGS = "give --calibration MANIFEST (a few minutes like those of use, apart from --eval)"
OutputRange = tuple[float, int]


@dataclass(frozen=True)
class CalibrationConfig:
    """How ranges are chosen from what was seen, and how many bits weights get.

    `percent` is that of method `percentile`. Seven-bit weights cannot overflow the 16-bit sums of x86
    processors without VNNI. `span_chunks` chunks are computed at once where the model can. Raises InputError.
    """

    method: str = "mse"
    percent: float = 99.99
    weight_bits: int = 7
    span_chunks: int = 16

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"calibration method is {self.method!r}; allowed are {', '.join(METHODS)}")
        if not 50 < self.percent <= 100:
            raise InputError(f"the percentile is {self.percent:g}; allowed is more than 50 up to 100")


@dataclass(frozen=True)
class CalibrationSet(Sequence[FloatArray]):
    """Features (T, F) of recordings, computed each time they are asked for: a set of any length takes the
    memory of one recording. Raises InputError on unreadable audio."""

    recordings: tuple[Recording, ...]
    frontend: FrontendConfig

    def __len__(self) -> int:
        return len(self.recordings)

    @overload
    def __getitem__(self, index: int) -> FloatArray: ...
    @overload
    def __getitem__(self, index: slice) -> CalibrationSet: ...
    def __getitem__(self, index: int | slice) -> FloatArray | CalibrationSet:
        if isinstance(index, slice):
            return replace(self, recordings=self.recordings[index])
        return features_of(at_rate(self.recordings[index], self.frontend.sample_rate), self.frontend)


def calibrate(
    model: nn.Module,
    spec: StreamingSpec,
    features: Iterable[FloatArray],
    config: CalibrationConfig = CalibrationConfig(),
) -> Scales:
    """Scales of every Linear, Conv1d and Conv2d that the recordings' features (T, F) reach, by module name.

    Raises InputError when there is no recording, or when a layer's input is not finite.
    """
    seen = observe(model, spec, features, config.span_chunks)
    modules = dict(model.named_modules())
    return {name: _layer_scales(modules[name], seen[name], config) for name in seen}


def static_scales(source: Source, config: CalibrationConfig) -> Scales:
    """Scales for int8-static: the checkpoint's own where it has them, of other layers measured.

    Raises InputError when layers between the first and the last lack scales and there is no recording.
    """
    lacking = uncovered(source.model, source.spec, source.scales)
    if source.scales and not lacking:
        return source.scales
    if not source.calibration:
        where = (
            f"; the checkpoint has none for {len(lacking)} layers, such as {lacking[0]}" if lacking else ""
        )
        raise InputError(f"int8-static needs recordings to measure its ranges on{where}; {GIVE_RECORDINGS}")
    return {**calibrate(source.model, source.spec, source.calibration, config), **source.scales}


def static_ranges(source: Source, config: CalibrationConfig) -> tuple[Scales, dict[str, OutputRange]]:
    """`static_scales`, and scale and zero point of each layer's output, for engines that round that, too.

    Raises InputError without recordings: no checkpoint has ranges of outputs.
    """
    if not source.calibration:
        raise InputError(
            f"int8-static of this engine rounds what layers give and needs recordings; {GIVE_RECORDINGS}"
        )
    with _observed(source.model, outputs=True) as given:
        measured = calibrate(source.model, source.spec, source.calibration, config)
    outputs = {name: input_scales(*range_of(given[name], config)) for name in measured}
    return {**measured, **source.scales}, outputs


def uncovered(model: nn.Module, spec: StreamingSpec, scales: Scales) -> list[str]:
    """Layers that `scales` lack, but for the first and the last to run, which stay in fp32 anyway."""
    return [name for name in running_order(model, spec)[1:-1] if name not in scales]


def running_order(model: nn.Module, spec: StreamingSpec) -> list[str]:
    """Names of the Linear, Conv1d and Conv2d layers as a step reaches them."""
    order: dict[str, None] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, __, name=name: order.setdefault(name))
        for name, layer in model.named_modules()
        if isinstance(layer, LAYERS)
    ]
    try:
        with torch.inference_mode():
            model(torch.zeros(1, spec.window_frames, spec.num_features), *model.initial_state(1))  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def observe(
    model: nn.Module, spec: StreamingSpec, features: Iterable[FloatArray], span_chunks: int = 16
) -> dict[str, Histogram]:
    """The distribution of every layer's input over whole recordings. Raises InputError as `calibrate`."""
    chunks = span_chunks if isinstance(model, ChunkedModel) else 1
    count = 0
    with _observed(model) as seen, torch.inference_mode():
        for recording in features:
            count += 1
            state = model.initial_state(1)  # type: ignore[operator]
            for span in spans(recording, spec, chunks):
                _, *state = model(torch.from_numpy(span), *state)
    if not count:
        raise InputError("there is no recording to measure ranges on; give --calibration MANIFEST")
    return {name: one for name, one in seen.items() if one.counts.any()}


def spans(features: FloatArray, spec: StreamingSpec, chunks: int) -> Iterator[FloatArray]:
    """The stream's windows (1, …, F) of features (T, F), up to `chunks` consecutive ones in one piece."""
    each = list(windows(features, spec))
    for start in range(0, len(each), chunks):
        *before, last = each[start : start + chunks]
        yield np.concatenate([*(window[:, : spec.chunk_frames] for window in before), last], axis=1)


def range_of(seen: Histogram, config: CalibrationConfig) -> histogram.Range:
    """The range of a layer's input that its eight bits shall cover, by the config's method."""
    methods: dict[str, Callable[[Histogram], histogram.Range]] = {
        "min-max": histogram.min_max,
        "percentile": lambda one: histogram.percentile(one, config.percent),
        "entropy": histogram.entropy,
        "mse": histogram.mse,
    }
    return methods[config.method](seen)


def _layer_scales(module: nn.Module, seen: Histogram, config: CalibrationConfig) -> LayerScales:
    weight = weight_scales(module.weight.detach().float().numpy(), config.weight_bits)  # type: ignore[operator, union-attr]
    scale, zero_point = input_scales(*range_of(seen, config))
    return LayerScales(tuple(map(float, weight)), scale, zero_point, config.weight_bits)


@contextmanager
def _observed(model: nn.Module, outputs: bool = False) -> Iterator[dict[str, Histogram]]:
    """Histograms by layer name, of what layers get or of what they give, that fill while the model runs."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LAYERS)}
    seen = {name: Histogram() for name in layers}
    hooks = [
        layer.register_forward_hook(_counter(name, seen[name], outputs)) for name, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _counter(name: str, seen: Histogram, outputs: bool) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def count(_: nn.Module, inputs: tuple[Any, ...], given: Any) -> None:
        values = (given if outputs else inputs[0]).detach().float().numpy()
        if not np.isfinite(values).all():
            what = "gives" if outputs else "gets"
            raise InputError(f"layer {name} {what} values that are not finite; the model is not trained well")
        seen.add(values)

    return count
