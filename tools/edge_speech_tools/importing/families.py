"""Whose model an ONNX file is, by its metadata, and how its tensors become a stream's.

The contracts of zipformer2, WeNet and NeMo CTC are those that sherpa-onnx reads (its files
sherpa-onnx/csrc/online-*-ctc-model.cc, https://github.com/k2-fsa/sherpa-onnx) and that the export scripts of
icefall, WeNet and NeMo write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edge_speech.bundle_manifest import parse_spec
from edge_speech.encoder import StreamingSpec, TensorSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech.features import SILENCE, FbankConfig, FrontendConfig, frontend_from_dict
from edge_speech.fields import Table
from edge_speech_tools.importing.binding import (
    Binding,
    BoundState,
    inner,
    inputs_of,
    signature,
    state_name,
    static_shape,
)
from edge_speech_tools.importing.description import Description
from edge_speech_tools.onnx_metadata import KEY, metadata
from edge_speech_tools.sherpa_classes import KALDI, NEMO

# ln(32768^2): from energies of samples on the scale of int16 to those of samples in [-1, 1].
INT16_ENERGY = 20.794415


@dataclass(frozen=True)
class Family:
    """A model's binding, how far a step moves on, and its front end where the metadata tell it."""

    name: str
    binding: Binding
    chunk_frames: int
    frontend: FrontendConfig | None
    padding_value: float | None = None


def family_of(model: onnx.ModelProto, described: Description) -> Family:
    """By the metadata, else by `described`. Raises InputError or CheckFailed."""
    known = metadata(model)
    if "decode_chunk_len" in known and "query_head_dims" in known:
        family = _zipformer2(model, known)
    elif "cnn_module_kernel" in known and "num_blocks" in known:
        family = _wenet(model, known, described)
    elif "window_size" in known and "cache_last_channel_dim1" in known:
        family = _nemo(model, known)
    elif KEY in known:
        family = _ours(known)
    else:
        family = _described(model, described)
    family = replace(family, binding=_without_idle(model.graph, family.binding))
    if KEY in known:
        frontend = _noted_frontend(known) or family.frontend
        family = replace(family, frontend=frontend, padding_value=_noted_spec(known).padding_value)
    return replace(family, frontend=described.frontend or family.frontend)


def _without_idle(graph: onnx.GraphProto, binding: Binding) -> Binding:
    """States that the graph hands through and nothing reads are zeros for ever."""
    idle = [s for s in binding.states if s.input and _is_idle(graph, s)]
    zeros = {s.input: np.zeros(s.spec.shape, s.spec.dtype) for s in idle}
    kept = tuple(s for s in binding.states if s not in idle)
    return replace(binding, states=kept, constants={**binding.constants, **zeros})


def _is_idle(graph: onnx.GraphProto, state: BoundState) -> bool:
    readers = [node for node in graph.node if state.input in node.input]
    return len(readers) == 1 and readers[0].op_type == "Identity" and state.output in readers[0].output


def _noted_frontend(known: Mapping[str, str]) -> FrontendConfig | None:
    data = _note(known).get("frontend")
    return None if data is None else frontend_from_dict(data)


def _noted_spec(known: Mapping[str, str]) -> StreamingSpec:
    return parse_spec(Table.of(_note(known).get("spec"), f"metadata {KEY}: spec"))


def _note(known: Mapping[str, str]) -> dict[str, Any]:
    try:
        data = json.loads(known[KEY])
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise InputError(f"the metadata's {KEY!r} is not the JSON that this program writes")
    return data


def _ours(known: Mapping[str, str]) -> Family:
    """Written by our own converter: the spec is noted."""
    spec = _noted_spec(known)
    states = tuple(BoundState(s, s.name, spec.next_name(s.name)) for s in spec.state)
    binding = Binding("features", (spec.window_frames, spec.num_features), "log_probs", states)
    return Family("edge-speech", binding, spec.chunk_frames, None)


def _number(known: Mapping[str, str], key: str, low: int = 1, high: int = 1 << 20) -> int:
    value = known.get(key, "")
    if not value.isdecimal() or not low <= int(value) <= high:
        raise InputError(f"the metadata's {key!r} is {value!r}; expected a whole number from {low} to {high}")
    return int(value)


def _numbers(known: Mapping[str, str], key: str) -> list[int]:
    values = known.get(key, "").split(",")
    if not all(v.strip().isdecimal() for v in values):
        raise InputError(
            f"the metadata's {key!r} is {known.get(key)!r}; expected whole numbers between commas"
        )
    return [int(v) for v in values]


def _zipformer2(model: onnx.ModelProto, known: Mapping[str, str]) -> Family:
    """x (N, T, F), then six states a layer, embed_states and processed_lens. Its features are Kaldi's of
    samples in [-1, 1]: those of int16 less a constant, not below the same floor."""
    inputs, outputs = inputs_of(model), list(signature(model.graph.output))
    (first, (shape, _)), *rest = inputs.items()
    window, bins = _number(known, "T"), shape[2] or KALDI.num_mel_bins
    states = 6 * sum(_numbers(known, "num_encoder_layers")) + 2
    if len(rest) != states or len(outputs) != states + 1:
        raise CheckFailed(
            f"the graph has {len(rest)} states and gives back {len(outputs) - 1}; its metadata's "
            f"num_encoder_layers {known['num_encoder_layers']} makes {states}: another model's metadata"
        )
    paired = _paired(rest, outputs[1:])
    scale = (INT16_ENERGY, SILENCE)
    binding = Binding(first, (window, bins), outputs[0], paired, scale=scale)
    frontend = replace(KALDI, num_mel_bins=bins)
    return Family("zipformer2", binding, _number(known, "decode_chunk_len"), frontend)


def _paired(
    inputs: list[tuple[str, tuple[list[int | None], str]]], outputs: list[str]
) -> tuple[BoundState, ...]:
    """States by order: every input with the output at its place."""
    states: list[BoundState] = []
    for (name, (shape, dtype)), output in zip(inputs, outputs, strict=True):
        plain = state_name(name, [s.spec.name for s in states])
        states.append(BoundState(TensorSpec(plain, static_shape(name, shape), dtype), name, output))
    return tuple(states)


def _wenet(model: onnx.ModelProto, known: Mapping[str, str], described: Description) -> Family:
    """x, offset, required_cache_size, attn_cache, conv_cache, attn_mask. The offset starts with the size of
    the cache and counts rows; the mask hides what of the cache no row has filled yet."""
    inputs, outputs = list(inputs_of(model)), list(signature(model.graph.output))
    if len(inputs) != 6 or len(outputs) != 3:
        raise CheckFailed(
            f"a WeNet CTC graph has 6 inputs and 3 outputs; this one {len(inputs)} and {len(outputs)}"
        )
    factor, right = _number(known, "subsampling_factor"), _number(known, "right_context", 0)
    chunk = (described.chunk_frames // factor) or _number(known, "chunk_size")
    left = chunk * _number(known, "left_chunks")
    blocks, heads, size = (_number(known, key) for key in ("num_blocks", "head", "output_size"))
    kernel = _number(known, "cnn_module_kernel", 2)
    x, offset, required, attention, convolution, mask = inputs
    shape = inputs_of(model)[x][0]
    window, bins = (chunk - 1) * factor + right + 1, shape[2] or KALDI.num_mel_bins
    states = (
        BoundState(TensorSpec("rows_seen", (1,), "int64"), "", ""),
        BoundState(
            TensorSpec("attn_cache", (blocks, heads, left, 2 * (size // heads)), "float32"),
            attention,
            outputs[1],
        ),
        BoundState(
            TensorSpec("conv_cache", (blocks, 1, size, kernel - 1), "float32"), convolution, outputs[2]
        ),
    )
    keys = np.arange(left + chunk).reshape(1, 1, -1)
    binding = Binding(
        x,
        (window, bins),
        outputs[0],
        states,
        constants={required: np.array([left], np.int64)},
        extra=_wenet_counters(offset, mask),
        extra_constants={
            "left_rows": np.array([left], np.int64),
            "chunk_rows": np.array([chunk], np.int64),
            "key_positions": keys,
        },
        first={offset: np.array([left], np.int64), mask: keys >= left},
    )
    return Family("wenet", binding, chunk * factor, replace(KALDI, num_mel_bins=bins))


def _wenet_counters(offset: str, mask: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", ["rows_seen", "left_rows"], [inner(offset)]),
        helper.make_node("Add", ["rows_seen", "chunk_rows"], ["next_rows_seen"]),
        helper.make_node("Sub", ["left_rows", "rows_seen"], ["unfilled_rows"]),
        helper.make_node("GreaterOrEqual", ["key_positions", "unfilled_rows"], [inner(mask)]),
    ]


def _nemo(model: onnx.ModelProto, known: Mapping[str, str]) -> Family:
    """Features (N, F, T), length, two caches, how much of the first is filled; lengths come out second."""
    if known.get("normalize_type", "") not in ("", "NA"):
        raise InputError(
            f"the model normalises features by {known['normalize_type']!r}, over the whole recording, which "
            "no stream can; take a streaming model of NeMo (normalize: NA)"
        )
    inputs, outputs = inputs_of(model), list(signature(model.graph.output))
    if len(inputs) != 5 or len(outputs) != 5:
        raise CheckFailed(
            f"a NeMo CTC graph has 5 inputs and outputs; this one {len(inputs)} and {len(outputs)}"
        )
    signal, length, channel, time, filled = inputs
    dims = {
        key: tuple(_number(known, f"{key}_dim{i}") for i in (1, 2, 3))
        for key in ("cache_last_channel", "cache_last_time")
    }
    window, bins = _number(known, "window_size"), inputs[signal][0][1] or NEMO.num_mel_bins
    states = (
        BoundState(
            TensorSpec("cache_last_channel", (1, *dims["cache_last_channel"]), "float32"), channel, outputs[2]
        ),
        BoundState(TensorSpec("cache_last_time", (1, *dims["cache_last_time"]), "float32"), time, outputs[3]),
        BoundState(TensorSpec("cache_last_channel_len", (1,), "int64"), filled, outputs[4]),
    )
    constants = {length: np.array([window], np.int64)}
    binding = Binding(signal, (window, bins), outputs[0], states, True, constants=constants)
    return Family("nemo", binding, _number(known, "chunk_shift"), replace(NEMO, num_mel_bins=bins))


def _described(model: onnx.ModelProto, described: Description) -> Family:
    """As the spec file says; without states there, inputs and outputs belong together by order."""
    if not described.chunk_frames:
        raise InputError(
            "the file's metadata name no streaming model that is known (ours, zipformer2, WeNet or NeMo "
            "CTC); describe it with --spec FILE.toml, see docs/importing.md"
        )
    inputs, outputs = inputs_of(model), list(signature(model.graph.output))
    features = described.features or next(iter(inputs))
    log_probs = described.log_probs or outputs[0]
    for name, there in [(features, list(inputs)), (log_probs, outputs)]:
        if name not in there:
            raise InputError(f"the graph has no {name!r}; it has {', '.join(there)}")
    others = [(n, v) for n, v in inputs.items() if n != features and n not in described.constants]
    rest = [name for name in outputs if name != log_probs]
    if described.state:
        states = _named(described, dict(others), rest)
    elif len(others) != len(rest):
        raise InputError(
            f"the graph has {len(others)} states going in and {len(rest)} coming out; pair them in --spec "
            "with [[encoder.state]] and name inputs that never change in [encoder.constants]"
        )
    else:
        states = _paired(others, rest)
    shape = inputs[features][0]
    bins = (shape[2] if len(shape) == 3 else None) or (described.frontend or FbankConfig()).num_features
    window = described.chunk_frames + described.right_context_frames
    constants = {n: np.array(v, _dtype(inputs, n)) for n, v in described.constants.items()}
    logits = described.output == "logits"
    binding = Binding(features, (window, bins), log_probs, states, constants=constants, logits=logits)
    return Family("described", binding, described.chunk_frames, None, described.padding_value)


def _dtype(inputs: Mapping[str, tuple[list[int | None], str]], name: str) -> str:
    if name not in inputs:
        raise InputError(f"[encoder.constants] names {name!r}; the graph's inputs are {', '.join(inputs)}")
    return inputs[name][1]


def _named(
    described: Description, inputs: Mapping[str, tuple[list[int | None], str]], outputs: list[str]
) -> tuple[BoundState, ...]:
    states: list[BoundState] = []
    for s in described.state:
        given, result = s.input or s.name, s.output or f"next_{s.name}"
        if given not in inputs or result not in outputs:
            raise InputError(
                f"state {s.name} needs the input {given!r} and the output {result!r}; the graph has "
                f"{', '.join(inputs)} and {', '.join(outputs)}"
            )
        shape, dtype = inputs[given]
        name = state_name(s.name, [b.spec.name for b in states])
        states.append(BoundState(TensorSpec(name, static_shape(given, shape, s.shape), dtype), given, result))
    unpaired = set(inputs) - {s.input for s in states}
    if unpaired:
        raise InputError(
            f"the graph's input {sorted(unpaired)[0]!r} is no state of --spec; add it there or to "
            "[encoder.constants]"
        )
    return tuple(states)
