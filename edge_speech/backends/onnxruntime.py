"""onnxruntime on the CPU: a step runs on buffers bound once; states ping-pong between two sets, nothing is
copied. `onnxruntime_cuda` and `onnxruntime_tensorrt` run the same files on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_speech.encoder import EncoderStream, FloatArray, StreamingSpec, Tensors
from edge_speech.errors import InputError

REQUIRES = "onnxruntime"
EXTRA = "pip install onnxruntime"

_ORT_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int64": "tensor(int64)",
    "int32": "tensor(int32)",
    "int8": "tensor(int8)",
    "uint8": "tensor(uint8)",
    "bool": "tensor(bool)",
}


Providers = Sequence[tuple[str, dict[str, Any]]]


def load(path: Path, spec: StreamingSpec, num_threads: int) -> OnnxEncoder:
    """Open an ONNX file whose inputs and outputs must be those of `spec`. Raises InputError."""
    return OnnxEncoder(open_session(path, spec, num_threads, [("CPUExecutionProvider", {})]), spec)


def open_session(path: Path, spec: StreamingSpec, num_threads: int, providers: Providers) -> Any:
    """A session on the first of `providers`, the others for what it lacks. Raises InputError, also where
    onnxruntime would go on without the first."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    names, settings = zip(*providers, strict=True)
    try:
        session = onnxruntime.InferenceSession(str(path), options, [*names], [*settings])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: onnxruntime cannot load it ({reason}); make the bundle again") from None
    if names[0] not in session.get_providers():
        raise InputError(
            f"{path}: {names[0]} does not start here; its libraries or its device are missing; choose "
            "another backend"
        )
    _check(path, "input", session.get_inputs(), spec.inputs())
    _check(path, "output", session.get_outputs(), spec.outputs())
    return session


@dataclass(frozen=True)
class OnnxEncoder:
    """A session, shared by its streams."""

    session: Any
    spec: StreamingSpec

    def open(self, features: FloatArray, log_probs: FloatArray) -> EncoderStream:
        """See edge_speech.encoder.Encoder."""
        return _OnnxStream(self.session, self.spec, features, log_probs)


class _OnnxStream:
    def __init__(
        self, session: Any, spec: StreamingSpec, features: FloatArray, log_probs: FloatArray
    ) -> None:
        self._run = session.run_with_iobinding
        self._buffers = features, log_probs
        self._states = [[np.zeros(t.shape, t.dtype) for t in spec.state] for _ in range(2)]
        forth = self._bind(session, spec, self._states[0], self._states[1])
        back = self._bind(session, spec, self._states[1], self._states[0])
        self._bindings = forth, back
        self._turn = 0

    def step(self) -> None:
        self._run(self._bindings[self._turn])
        self._turn = 1 - self._turn

    def reset(self) -> None:
        for array in self._states[0]:
            array.fill(0)
        self._turn = 0

    def _bind(
        self, session: Any, spec: StreamingSpec, old: list[npt.NDArray[Any]], new: list[npt.NDArray[Any]]
    ) -> Any:
        features, log_probs = self._buffers
        binding = session.io_binding()
        for (name, (dtype, shape)), array in zip(spec.inputs().items(), [features, *old], strict=True):
            binding.bind_input(name, "cpu", 0, np.dtype(dtype), shape, array.ctypes.data)
        for (name, (dtype, shape)), array in zip(spec.outputs().items(), [log_probs, *new], strict=True):
            binding.bind_output(name, "cpu", 0, np.dtype(dtype), shape, array.ctypes.data)
        return binding


def _check(path: Path, kind: str, found: list[Any], expected: Tensors) -> None:
    names = [node.name for node in found]
    if sorted(names) != sorted(expected):
        odd = sorted(set(names) ^ set(expected))
        raise InputError(f"{path}: its {kind}s differ from the manifest's encoder in {', '.join(odd[:4])}")
    for node in found:
        dtype, shape = expected[node.name]
        if node.type != _ORT_TYPES[dtype] or tuple(node.shape) != tuple(shape):
            got = f"{node.type} {list(node.shape)}"
            raise InputError(
                f"{path}: {kind} {node.name!r} is {got}, the manifest says {dtype} {list(shape)}"
            )
