"""TensorRT through pycuda: the state stays on the GPU, a step is one captured CUDA graph.

There are two execution contexts: one reads the first set of state buffers and writes the second, the other
the reverse, and steps alternate. Addresses are set once, nothing of the state is copied. A graph is captured
from each, after it has run once:
https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.cuda_graph import CaptureFailed, CudaGraph, capture
from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.engine_build import make_logger
from edge_speech.engine_cache import find_engine, has_engine, read_engine, tensorrt_module
from edge_speech.errors import EngineRefused
from edge_speech.gpu import Gpu, driver, is_page_locked, open_gpu, step_memory

__all__ = ["find_engine", "has_engine", "load"]

REQUIRES = "tensorrt pycuda"
EXTRA = 'sudo apt-get install python3-libnvinfer; pip install "edge-speech[jetson]"'

# TensorRT before 9 has no int64: graphs that ask for it get int32.
_TYPES = {
    "float32": ("FLOAT",), "float16": ("HALF",), "int64": ("INT64", "INT32"), "int32": ("INT32",),
    "int8": ("INT8",), "uint8": ("UINT8",), "bool": ("BOOL",),
}  # fmt: skip


def load(path: Path, spec: StreamingSpec, num_threads: int) -> TensorRtEncoder:
    """Open an engine built here; `num_threads` means nothing on a GPU. Raises EngineRefused, InputError."""
    trt, gpu = tensorrt_module(), open_gpu()
    content, note = read_engine(path)
    logger = make_logger(trt)
    with gpu.current():
        try:
            runtime = trt.Runtime(logger)
        except TypeError:
            raise EngineRefused(f"{path}: TensorRT {trt.__version__} cannot start its runtime here") from None
        if note.version_compatible:
            runtime.engine_host_code_allowed = True
        if note.options.dla_core >= 0:
            runtime.DLA_core = note.options.dla_core
        engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        said = logger.errors[0] if logger.errors else "no reason given"
        raise EngineRefused(f"{path}: TensorRT {trt.__version__} refuses it ({said}); build the engine again")
    _check(trt, path, engine, spec)
    return TensorRtEncoder(runtime, engine, gpu, spec)


@dataclass(frozen=True)
class TensorRtEncoder:
    """An engine, shared by its streams, and the runtime that must outlive it."""

    runtime: Any
    engine: Any
    gpu: Gpu
    spec: StreamingSpec

    def allocate(self, shape: tuple[int, ...]) -> FloatArray:
        """Zeros in page-locked memory: a stream opened on them copies nothing on the CPU's side."""
        with self.gpu.current():
            return step_memory(self.gpu).allocate(shape)

    def open(self, features: FloatArray, log_probs: FloatArray) -> TensorRtStream:
        """See edge_speech.encoder.Encoder."""
        with self.gpu.current():
            return TensorRtStream(self, features, log_probs)


class TensorRtStream:
    """See edge_speech.encoder.EncoderStream."""

    def __init__(self, encoder: TensorRtEncoder, features: FloatArray, log_probs: FloatArray) -> None:
        self._gpu, self._memory = encoder.gpu, step_memory(encoder.gpu)
        self._given = features, log_probs
        self._features, self._log_probs = (self._locked(array) for array in self._given)
        self._stream = driver().Stream()
        self._states = [_state_buffers(encoder.spec) for _ in range(2)]
        ends = self._memory.bind(self._features), self._memory.bind(self._log_probs)
        self._zero()
        self._steps = [self._prepared(encoder, ends, turn) for turn in range(2)]
        self._turn = 0
        self._zero()

    @property
    def captured(self) -> bool:
        """Whether steps are launched as CUDA graphs."""
        return all(isinstance(step, _Launch) for step in self._steps)

    def step(self) -> None:
        """One graph, and back when log_probs are there."""
        features, log_probs = self._given
        if self._features is not features:
            np.copyto(self._features, features)
        with self._gpu.current():
            self._steps[self._turn]()
            self._stream.synchronize()
        if self._log_probs is not log_probs:
            np.copyto(log_probs, self._log_probs)
        self._turn = 1 - self._turn

    def reset(self) -> None:
        """Zeros where the next step reads its state."""
        with self._gpu.current():
            self._zero()
        self._turn = 0

    def _zero(self) -> None:
        for buffer, size in self._states[0]:
            driver().memset_d8_async(int(buffer), 0, size, self._stream)
        self._stream.synchronize()

    def _locked(self, array: FloatArray) -> FloatArray:
        return array if is_page_locked(array) else self._memory.allocate(array.shape)

    def _prepared(self, encoder: TensorRtEncoder, ends: tuple[int, int], turn: int) -> Callable[[], None]:
        """The step that reads state `turn` and writes the other: a graph, or where none can be captured each
        of its parts."""
        context = encoder.engine.create_execution_context()
        if context is None:
            raise MemoryError
        for name, address in _addresses(encoder.spec, ends, self._states[turn], self._states[1 - turn]):
            if not context.set_tensor_address(name, address):
                raise EngineRefused(f"TensorRT does not take a buffer for {name}; build the engine again")

        def enqueue() -> None:
            self._memory.upload(self._stream, self._features)
            if not context.execute_async_v3(self._stream.handle):
                raise RuntimeError("TensorRT could not enqueue a step")
            self._memory.download(self._stream, self._log_probs)

        enqueue()
        self._stream.synchronize()
        try:
            graph = capture(self._stream.handle, enqueue)
        except (CaptureFailed, RuntimeError, driver().Error):
            return enqueue
        return _Launch(graph, self._stream.handle, context)


@dataclass(frozen=True)
class _Launch:
    """A captured step; `context` owns memory that its graph uses."""

    graph: CudaGraph
    stream: int
    context: Any

    def __call__(self) -> None:
        self.graph.launch(self.stream)


def _state_buffers(spec: StreamingSpec) -> list[tuple[Any, int]]:
    """GPU memory of each state tensor, and its size in bytes."""
    sizes = [int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize for tensor in spec.state]
    return [(driver().mem_alloc(size), size) for size in sizes]


def _addresses(
    spec: StreamingSpec, ends: tuple[int, int], old: list[tuple[Any, int]], new: list[tuple[Any, int]]
) -> list[tuple[str, int]]:
    pairs = [("features", ends[0]), ("log_probs", ends[1])]
    for tensor, (read, _), (written, _) in zip(spec.state, old, new, strict=True):
        pairs += [(tensor.name, int(read)), (spec.next_name(tensor.name), int(written))]
    return pairs


def _check(trt: Any, path: Path, engine: Any, spec: StreamingSpec) -> None:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    for mode, expected in (
        (trt.TensorIOMode.INPUT, spec.inputs()),
        (trt.TensorIOMode.OUTPUT, spec.outputs()),
    ):
        found = {name for name in names if engine.get_tensor_mode(name) == mode}
        odd = sorted(found ^ set(expected))
        if odd:
            raise EngineRefused(
                f"{path}: its tensors differ from the manifest's encoder in {', '.join(odd[:4])}"
            )
        for name, (dtype, shape) in expected.items():
            got = engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name))
            if got[0] not in _TYPES[dtype] or got[1] != tuple(shape):
                raise EngineRefused(f"{path}: {name!r} is {got}, the manifest says {dtype} {list(shape)}")
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise EngineRefused(
                    f"{path}: {name!r} is a shape on the CPU, which a stream's state cannot be"
                )
