"""Streaming ONNX: one encoder step, state in and state out, every shape static, batch 1."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from edge_speech.encoder import StreamingSpec
from edge_speech.errors import CheckFailed, InputError
from edge_speech_tools.onnx_graph import fold_weights, name_layers, quiet
from edge_speech_tools.onnx_metadata import note
from edge_speech_tools.onnx_model import OnnxModel
from edge_speech_tools.passes import PassResult, Source
from edge_speech_tools.products import regroup_products
from edge_speech_tools.simplify import simplified

BACKEND = "onnxruntime"
PRECISION = "fp32"
NEEDS: tuple[str, ...] = ()
NEEDS_CALIBRATION = False
FILE_NAME = "encoder.fp32.onnx"
# The same with a node for each layer, under its name: for passes that change layers.
LAYERS_NAME = "encoder.layers.onnx"

Signature = dict[str, tuple[tuple[int | str, ...], str]]


@dataclass(frozen=True)
class Config:
    """Opset 18 has everything needed (LayerNormalization is 17) and the older engines on boards read it."""

    opset: int = 18


def run(source: Source, config: Config = Config()) -> PassResult:
    """Export the model, simplify the graph, check it against its spec. Raises InputError or CheckFailed."""
    path, named = source.directory / FILE_NAME, source.directory / LAYERS_NAME
    if isinstance(source.model, OnnxModel):
        for copy in (named, path):
            shutil.copyfile(source.model.path, copy)
        check_graph(path, source.spec)
        return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)
    try:
        export(source, named, config)
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {str(cause).splitlines()[0]}"
        raise InputError(
            f"the model cannot be exported to ONNX ({reason}); its forward must be free of branches on data"
        ) from error
    strip_notes(named, layers(source.model))
    model = simplified(onnx.load(named))
    note(model, source.spec, source.frontend)
    onnx.save(model, named)
    check_graph(named, source.spec)
    regroup_products(model)
    onnx.save(model, path)
    check_graph(path, source.spec)
    return PassResult(path, BACKEND, PRECISION, "built", check_backend=BACKEND)


def export(source: Source, path: Path, config: Config) -> None:
    """Write the graph of one step as the exporter gives it."""
    inputs = (example_features(source.spec), *source.model.initial_state(1))  # type: ignore[operator]
    names = [s.name for s in source.spec.state]
    with quiet(), torch.inference_mode():
        torch.onnx.export(
            source.model,
            inputs,
            str(path),
            input_names=["features", *names],
            output_names=["log_probs", *map(source.spec.next_name, names)],
            opset_version=config.opset,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def example_features(spec: StreamingSpec) -> torch.Tensor:
    """Features (1, window, F) to trace with: seeded noise, so that nothing folds to a constant."""
    return torch.randn(1, spec.window_frames, spec.num_features, generator=torch.Generator().manual_seed(0))


def layers(model: torch.nn.Module) -> list[str]:
    """Names of the modules that have a weight of their own, which their nodes shall have too."""
    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.LSTM, torch.nn.GRU)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def strip_notes(path: Path, modules: Iterable[str] = ()) -> None:
    """Drop what the exporter noted for its own debugging: the stack traces hold paths of this machine.

    What it noted of `modules` lives on as the names of their nodes.
    """
    model = onnx.load(path)
    name_layers(model, modules)
    fold_weights(model)
    graph = model.graph
    for noted in [
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.input,
        *graph.output,
        *graph.initializer,
    ]:
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    onnx.save(model, path)


def check_graph(path: Path, spec: StreamingSpec) -> None:
    """Names, shapes and dtypes as in `spec`, every input read, no output constant. Raises CheckFailed."""
    graph = onnx.load(path).graph
    onnx.checker.check_model(str(path), full_check=True)
    inputs: Signature = {"features": ((1, spec.window_frames, spec.num_features), "float32")}
    inputs |= {s.name: (s.shape, s.dtype) for s in spec.state}
    _check_values("inputs", _signature(graph.input), inputs)
    outputs: Signature = {"log_probs": ((1, spec.output_frames, spec.vocab_size), "float32")}
    outputs |= {spec.next_name(s.name): (s.shape, s.dtype) for s in spec.state}
    _check_values("outputs", _signature(graph.output), outputs)
    read = {name for node in graph.node for name in node.input}
    written = {name for node in graph.node if node.op_type != "Constant" for name in node.output}
    dropped = [v.name for v in graph.input if v.name not in read] + [
        v.name for v in graph.output if v.name not in written
    ]
    if dropped:
        raise CheckFailed(
            f"the exported graph does not use {', '.join(dropped)}; the model must read and renew its state"
        )


def _signature(values: Iterable[onnx.ValueInfoProto]) -> Signature:
    found: Signature = {}
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
        )
        found[value.name] = (shape, str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return found


def _check_values(what: str, got: Signature, want: Signature) -> None:
    if list(got) != list(want):
        raise CheckFailed(f"the exported graph has {what} {list(got)}; the spec asks for {list(want)}")
    for name, value in want.items():
        if got[name] != value:
            raise CheckFailed(f"the exported graph has {name} {got[name]}; the spec asks for {value}")
