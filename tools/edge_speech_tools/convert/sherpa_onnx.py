"""An ONNX that sherpa-onnx runs as it is: one of its streaming CTC classes, our state in that class's caches.

The class follows from the model's front end: see `sherpa_classes`. sherpa-onnx binds tensors by their order
and carries two caches whose shapes it takes from the metadata, all zero at first. One holds the whole state,
the other one and the counters are handed through. It is one stream a call: the graph has no batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edge_speech.encoder import StreamingSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.onnx_graph import rename, values_of
from edge_speech_tools.onnx_metadata import metadata, note, set_metadata
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.sherpa_classes import WENET, class_for, loading
from edge_speech_tools.state_packing import Packing, packed_size

BACKEND = "sherpa-onnx"
PRECISION = "fp32"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = False
# Made where it is asked for by name, for any target, beside what our own runtime loads.
ON_REQUEST = True
FILE_NAME = "encoder.sherpa-onnx.onnx"

_PREFIX = "sherpa"
Tensor = tuple[str, int, Sequence[int]]


@dataclass(frozen=True)
class Config:
    """`left_chunks` is sherpa-onnx's default, so that only its `chunk_size` has to be given. `tolerance`:
    largest difference of log_probs of three steps from the graph it was made of."""

    left_chunks: int = 4
    tolerance: float = 1e-4


def run(source: Source, config: Config = Config()) -> PassResult:
    """Wrap the fp32 graph in `source.directory`.

    Raises InputError on a front end or tokens that sherpa-onnx does not read, CheckFailed when the wrapped
    graph differs.
    """
    if source.frontend is None:
        raise InputError("sherpa-onnx needs to know the model's front end")
    chosen = class_for(source.frontend)
    check_tokens(source.tokens)
    graph_path = source.directory / streaming_onnx.FILE_NAME
    model = onnx.load(graph_path)
    wrap = wrap_wenet if chosen is WENET else wrap_nemo
    wrap(model, source.spec, config)
    note(model, source.spec, source.frontend)
    path = source.directory / FILE_NAME
    onnx.checker.check_model(model)
    onnx.save(model, path)
    compare_graphs(graph_path, path, source.spec, config.tolerance)
    return PassResult(path, BACKEND, PRECISION, "built", None, load_command(path, source))


def load_command(path: Path, source: Source) -> str:
    """The Python call that loads the artifact."""
    assert source.frontend is not None
    loader, options = loading(source.spec, source.frontend)
    given = "".join(f", {name}={value}" for name, value in options.items())
    call = f'sherpa_onnx.OnlineRecognizer.{loader}(tokens="tokens.txt", model="{path.name}"{given})'
    return f"{call}; one stream a call, silence after the last word"


def check_tokens(tokens: Sequence[str]) -> None:
    """Raises InputError on tokens that sherpa-onnx cannot read: it splits tokens.txt at white space."""
    odd = [token for token in tokens if not token or token.split() != [token]]
    if odd:
        raise InputError(
            f"token {odd[0]!r} has white space, at which sherpa-onnx splits the lines of tokens.txt"
        )


def wrap_wenet(model: onnx.ModelProto, spec: StreamingSpec, config: Config) -> None:
    """The inputs and outputs of `from_wenet_ctc`, one block with one head whose keys are the state."""
    rows = spec.output_frames
    left = rows * config.left_chunks
    width = -(-packed_size(spec.state) // (2 * left))
    cache, other = (1, 1, left, 2 * width), (1, 1, width, 1)
    inputs: list[Tensor] = [
        ("x", TensorProto.FLOAT, (1, spec.window_frames, spec.num_features)),
        ("offset", TensorProto.INT64, (1,)),
        ("required_cache_size", TensorProto.INT64, (1,)),
        ("attn_cache", TensorProto.FLOAT, cache),
        ("conv_cache", TensorProto.FLOAT, other),
        ("attn_mask", TensorProto.BOOL, (1, 1, left + rows)),
    ]
    outputs: list[Tensor] = [
        ("log_probs", TensorProto.FLOAT, (1, rows, spec.vocab_size)),
        ("next_attn_cache", TensorProto.FLOAT, cache),
        ("next_conv_cache", TensorProto.FLOAT, other),
    ]
    before = [helper.make_node("Identity", ["x"], [_inner("features")])]
    after = [helper.make_node("Identity", ["conv_cache"], ["next_conv_cache"])]
    carried = _Carried(spec, "attn_cache", "next_attn_cache", cache)
    _wrap(model, carried, (inputs, outputs), (before, after))
    described = {
        "model_type": "wenet_ctc", "version": 1, "comment": "streaming", "chunk_size": rows,
        "left_chunks": config.left_chunks, "head": 1, "num_blocks": 1, "output_size": width,
        "cnn_module_kernel": 2, "subsampling_factor": spec.subsampling_factor, "vocab_size": spec.vocab_size,
        "right_context": spec.right_context_frames + spec.subsampling_factor - 1,
    }  # fmt: skip
    set_metadata(model, {**metadata(model), **described})


def wrap_nemo(model: onnx.ModelProto, spec: StreamingSpec, config: Config) -> None:
    """The inputs and outputs of `from_nemo_ctc`; its vocab_size does not count the blank."""
    cache, other = (1, 1, 1, packed_size(spec.state)), (1, 1, 1, 1)
    inputs: list[Tensor] = [
        ("audio_signal", TensorProto.FLOAT, (1, spec.num_features, spec.window_frames)),
        ("length", TensorProto.INT64, (1,)),
        ("cache_last_channel", TensorProto.FLOAT, cache),
        ("cache_last_time", TensorProto.FLOAT, other),
        ("cache_last_channel_len", TensorProto.INT64, (1,)),
    ]
    outputs: list[Tensor] = [
        ("logprobs", TensorProto.FLOAT, (1, spec.output_frames, spec.vocab_size)),
        ("encoded_lengths", TensorProto.INT64, (1,)),
        ("cache_last_channel_next", TensorProto.FLOAT, cache),
        ("cache_last_time_next", TensorProto.FLOAT, other),
        ("cache_last_channel_next_len", TensorProto.INT64, (1,)),
    ]
    before = [helper.make_node("Transpose", ["audio_signal"], [_inner("features")], perm=[0, 2, 1])]
    rows = helper.make_tensor("rows", TensorProto.INT64, [1], [spec.output_frames])
    after = [
        helper.make_node("Constant", [], ["encoded_lengths"], value=rows),
        helper.make_node("Identity", ["cache_last_time"], ["cache_last_time_next"]),
        helper.make_node("Identity", ["cache_last_channel_len"], ["cache_last_channel_next_len"]),
    ]
    carried = _Carried(spec, "cache_last_channel", "cache_last_channel_next", cache)
    _wrap(model, carried, (inputs, outputs), (before, after))
    described = {
        "model_type": "EncDecCTCModelBPE", "version": 1, "comment": "streaming", "normalize_type": "",
        "window_size": spec.window_frames, "chunk_shift": spec.chunk_frames,
        "subsampling_factor": spec.subsampling_factor, "vocab_size": spec.vocab_size - 1,
    }  # fmt: skip
    dims = {"cache_last_channel": cache, "cache_last_time": other}
    described |= {f"{name}_dim{i}": shape[i] for name, shape in dims.items() for i in (1, 2, 3)}
    set_metadata(model, {**metadata(model), **described})


@dataclass(frozen=True)
class _Carried:
    """The cache that holds the state of `spec`: its names before and after a step, and its shape."""

    spec: StreamingSpec
    cache: str
    following: str
    shape: tuple[int, ...]


def _wrap(
    model: onnx.ModelProto,
    carried: _Carried,
    signature: tuple[list[Tensor], list[Tensor]],
    nodes: tuple[list[onnx.NodeProto], list[onnx.NodeProto]],
) -> None:
    """Give the graph the inputs and outputs of `signature`, and `nodes` before and after its own."""
    graph, spec = model.graph, carried.spec
    names = [s.name for s in spec.state]
    inputs, outputs = signature
    rename(graph, {name: _inner(name) for name in values_of(graph)} | {"log_probs": outputs[0][0]})
    head, tail = Packing(spec.state, f"{_PREFIX}_in"), Packing(spec.state, f"{_PREFIX}_out")
    head.unpack(carried.cache, [_inner(name) for name in names])
    tail.pack([_inner(spec.next_name(name)) for name in names], carried.following, carried.shape)
    every = [*nodes[0], *head.nodes, *graph.node, *tail.nodes, *nodes[1]]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(every)
    graph.initializer.extend([*head.constants, *tail.constants])
    graph.input.extend(helper.make_tensor_value_info(*tensor) for tensor in inputs)
    graph.output.extend(helper.make_tensor_value_info(*tensor) for tensor in outputs)


def _inner(name: str) -> str:
    return f"encoder_{name}"


def compare_graphs(plain: Path, wrapped: Path, spec: StreamingSpec, tolerance: float) -> None:
    """Three steps of noise through both graphs, each carrying its own state. Raises CheckFailed."""
    import onnxruntime

    one, other = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (plain, wrapped)
    )
    state: list[Any] = [np.zeros(s.shape, s.dtype) for s in spec.state]
    fed: dict[str, Any] = {v.name: np.zeros(v.shape, _numpy_type(v.type)) for v in other.get_inputs()}
    caches = [name for name in fed if "cache" in name and name != "required_cache_size"]
    random = np.random.default_rng(0)
    for _ in range(3):
        features = random.normal(-8, 4, (1, spec.window_frames, spec.num_features)).astype(np.float32)
        known = {s.name: tensor for s, tensor in zip(spec.state, state, strict=True)}
        want, *state = one.run(None, {"features": features, **known})
        first = next(iter(fed))
        fed[first] = features if first == "x" else features.transpose(0, 2, 1)
        got, *rest = other.run(None, fed)
        fed |= zip(caches, rest[-len(caches) :], strict=True)
        difference = float(np.abs(got - want).max())
        if not difference <= tolerance:
            raise CheckFailed(
                f"{wrapped.name} differs from {plain.name} by {difference:.2e}, at most {tolerance:g}"
            )


def _numpy_type(name: str) -> type[Any]:
    return {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}[name]
