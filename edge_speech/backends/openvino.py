"""OpenVINO on the CPU: it loads the files of `onnxruntime`. A step runs on buffers bound once.

There are two requests: one reads the first set of state arrays and writes the second, the other the reverse.
They share the arrays' memory, nothing is copied.

A file is read and compiled in a process of its own, which also tries one step, and comes back as OpenVINO's
compiled form: on some sound graphs and some damaged ones OpenVINO 2026.4 ends the process.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import EncoderStream, FloatArray, StreamingSpec, Tensors
from edge_speech.errors import InputError

REQUIRES = "openvino"
EXTRA = 'pip install "edge-speech[openvino]"'
RUNS = ("onnxruntime",)

_TELEMETRY = "openvino_telemetry"
_TYPES = {
    "float32": "f32", "float16": "f16", "int64": "i64", "int32": "i32", "int8": "i8", "uint8": "u8",
    "bool": "boolean",
}  # fmt: skip


def load(path: Path, spec: StreamingSpec, num_threads: int) -> OpenvinoEncoder:
    """Open an ONNX file whose inputs and outputs must be those of `spec`. Raises InputError."""
    blob = _compiled_apart(path, num_threads)
    try:
        with _signal_stack_kept():
            model = _module().Core().import_model(io.BytesIO(blob), "CPU", _options(num_threads))
    except RuntimeError as error:
        raise InputError(f"{path}: OpenVINO cannot load what it compiled ({_reason(str(error))})") from None
    _check(path, "input", model.inputs, spec.inputs())
    _check(path, "output", model.outputs, spec.outputs())
    return OpenvinoEncoder(model, spec)


@dataclass(frozen=True)
class OpenvinoEncoder:
    """A compiled model, shared by its streams."""

    model: Any
    spec: StreamingSpec

    def open(self, features: FloatArray, log_probs: FloatArray) -> EncoderStream:
        """See edge_speech.encoder.Encoder."""
        return _OpenvinoStream(self.model, self.spec, features, log_probs)


class _OpenvinoStream:
    def __init__(self, model: Any, spec: StreamingSpec, features: FloatArray, log_probs: FloatArray) -> None:
        self._states = [[np.zeros(t.shape, t.dtype) for t in spec.state] for _ in range(2)]
        ends = features[None], log_probs[None]
        forth = _bound(model, spec, ends, self._states[0], self._states[1])
        back = _bound(model, spec, ends, self._states[1], self._states[0])
        self._requests = forth, back
        self._turn = 0

    def step(self) -> None:
        request = self._requests[self._turn]
        request.start_async()  # infer() would make a dictionary of the outputs
        request.wait()
        self._turn = 1 - self._turn

    def reset(self) -> None:
        for array in self._states[0]:
            array.fill(0)
        self._turn = 0


def _bound(
    model: Any,
    spec: StreamingSpec,
    ends: tuple[FloatArray, FloatArray],
    old: list[npt.NDArray[Any]],
    new: list[npt.NDArray[Any]],
) -> Any:
    openvino = _module()
    request = model.create_infer_request()
    arrays = dict(zip((*spec.inputs(), *spec.outputs()), (ends[0], *old, ends[1], *new), strict=True))
    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    return request


class _Stack(ctypes.Structure):
    """stack_t of signal.h on Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Where this thread's signal handlers run stays as it is.

    OpenVINO gives the thread that loads a model 20 KB for them. With the registers of a CPU with AMX in use a
    handler needs more, and then the next signal, a Ctrl-C or the end of a child process, ends the process.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def _module() -> Any:
    """OpenVINO without `openvino_telemetry`, which it brings, and which reports every import to its maker."""
    absent = object()
    before = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        if before is not absent:
            sys.modules[_TELEMETRY] = before  # type: ignore[assignment]


def _options(num_threads: int) -> dict[str, str]:
    """By default it computes in bfloat16 where the CPU has it, and pins its threads to cores. Its fused
    kernels ("snippets") end the process where such a CPU shall compute a TCN in fp32; without them a step is
    no slower.

    https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/cpu-device.html
    """
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "SNIPPETS_MODE": "DISABLE",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
        "ENABLE_CPU_PINNING": "NO",
    }


def _compiled_apart(path: Path, num_threads: int) -> bytes:
    command = [sys.executable, "-m", __name__, str(path), str(num_threads)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0 and done.stdout:
        return done.stdout
    said = _reason(done.stderr.decode(errors="replace")) if done.returncode > 0 else "it crashes"
    raise InputError(
        f"{path}: OpenVINO cannot load it ({said}); choose another backend, or make the bundle again"
    )


def _compile(path: Path, num_threads: int) -> bytes:
    """The compiled form of an ONNX file with which a step on zeros works. Raises RuntimeError."""
    openvino = _module()
    core = openvino.Core()
    model = core.compile_model(core.read_model(path), "CPU", _options(num_threads))
    model.create_infer_request().infer()
    exported = model.export_model()
    return bytes(exported.getvalue())


def _check(path: Path, kind: str, found: list[Any], expected: Tensors) -> None:
    nodes = {name: node for node in found for name in node.names if name in expected}
    if len(nodes) != len(found) or len(nodes) != len(expected):
        names = {node.any_name for node in found}
        odd = sorted(names ^ set(expected))
        raise InputError(f"{path}: its {kind}s differ from the manifest's encoder in {', '.join(odd[:4])}")
    for name, node in nodes.items():
        dtype, shape = expected[name]
        got = node.element_type.get_type_name(), str(node.partial_shape)
        if got[0] != _TYPES[dtype] or node.partial_shape.is_dynamic or tuple(node.shape) != tuple(shape):
            raise InputError(
                f"{path}: {kind} {name!r} is {' '.join(got)}, the manifest says {dtype} {list(shape)}"
            )


def _reason(said: str) -> str:
    """Of what OpenVINO says the last line; before it are places in its source."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"


def _main(path: str, num_threads: str) -> None:
    """Give the compiled form on stdout, where nothing else shall write; or say why not, with 2."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        blob = _compile(Path(path), int(num_threads))
    except RuntimeError as error:
        sys.exit(_fail(error))
    with os.fdopen(stdout, "wb") as file:
        file.write(blob)


def _fail(error: Exception) -> int:
    print(_reason(str(error)), file=sys.stderr)
    return 2


if __name__ == "__main__":
    _main(*sys.argv[1:])
