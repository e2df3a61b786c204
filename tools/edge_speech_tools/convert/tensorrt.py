"""Typed fp16 ONNX, and the engine.toml by which `edge-speech build-engine` builds from it on the board.

An engine runs only with the TensorRT version and on the GPU model it was built for, so none is built here:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
The graph carries its precision in its types; STRONGLY_TYPED networks take it from there:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/capabilities.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edge_speech.bundle import sha256_of
from edge_speech.engine_recipe import SUFFIX, EngineRecipe, as_toml, profiles_of, read_recipe, version_of
from edge_speech.errors import InputError
from edge_speech_tools.convert import onnx as streaming_onnx
from edge_speech_tools.convert.onnx import check_graph
from edge_speech_tools.onnx_fp16 import to_fp16
from edge_speech_tools.onnx_opset17 import to_opset17
from edge_speech_tools.passes import PassResult, Source

BACKEND = "tensorrt"
PRECISION = "fp16"
NEEDS = ("onnx",)
NEEDS_CALIBRATION = False
FILE_NAME = "encoder.fp16.onnx"
# Where a target's recipe says nothing: JetPack 6.2's, https://developer.nvidia.com/embedded/jetpack-sdk-62
TENSORRT_MINIMUM = "10.3"
# From this TensorRT on a graph's types are the engine's; an older one is told to use fp16 beside the Q/DQ.
TYPED = (10, 0)
# The first that has the operator, by its parser's changelog (data/operators.toml).
LAYER_NORMALIZATION = (8, 6)
# What a target's recipe may say about engines.
RECIPE_KEYS = (
    "workspace_mib", "dla_core", "gpu_fallback", "sparse_weights", "version_compatible",
    "hardware_compatible",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """`fp32_op_types` stay float32: sums of squares and of exponentials overflow or lose digits in fp16.

    Inputs, outputs and state stay float32 with a cast at the border, so the stream's spec is the same for
    every artifact of a bundle.
    """

    fp32_op_types: tuple[str, ...] = ("LayerNormalization", "LogSoftmax", "ReduceMean", "Pow", "Sqrt")


def run(source: Source, config: Config = Config()) -> PassResult:
    """Convert the fp32 graph in `source.directory`. Raises CheckFailed, InputError on an odd recipe."""
    path = source.directory / FILE_NAME
    fp32 = onnx.load(source.directory / streaming_onnx.LAYERS_NAME)
    onnx.save(for_version(to_fp16(fp32, config.fp32_op_types), tensorrt_minimum(source)), path)
    check_graph(path, source.spec)
    return planned(source, path, PRECISION)


def for_version(model: onnx.ModelProto, version: str) -> onnx.ModelProto:
    """The graph in operators and an opset that this TensorRT documents. Raises CheckFailed."""
    number = version_of(version)
    return model if number >= TYPED else to_opset17(model, layer_normalization=number >= LAYER_NORMALIZATION)


def planned(source: Source, path: Path, precision: str, typed: bool = True) -> PassResult:
    """The graph at `path` with its engine.toml. Raises InputError on a target's odd recipe."""
    recipe = path.with_suffix(SUFFIX)
    recipe.write_text(as_toml(engine_recipe(source, path, precision, typed)), encoding="utf-8")
    read_recipe(recipe)
    command = f"edge-speech build-engine BUNDLE --precision {precision}"
    return PassResult(path, BACKEND, precision, "planned", "onnxruntime", command, (recipe,))


def engine_recipe(source: Source, path: Path, precision: str, typed: bool) -> EngineRecipe:
    """Shapes from the spec, everything else from the target's recipe where that says it."""
    said = {key: value for key, value in source.recipe.items() if key in RECIPE_KEYS}
    return EngineRecipe(
        onnx=path.name,
        onnx_sha256=sha256_of(path),
        precision=precision,
        profiles=profiles_of(source.spec),
        tensorrt_minimum=tensorrt_minimum(source),
        typed=typed,
        **said,
    )


def tensorrt_minimum(source: Source) -> str:
    """The TensorRT that the target builds for: older ones are refused on the board."""
    said = source.recipe.get("tensorrt", TENSORRT_MINIMUM)
    if not isinstance(said, str) or len(version_of(said)) < 2:
        raise InputError(f'tensorrt of the target is {said!r}; allowed is a version such as "10.3"')
    return said
