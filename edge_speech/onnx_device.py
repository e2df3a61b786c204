"""An onnxruntime session on a GPU: the state stays there, in two sets of buffers that steps write in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_speech.encoder import EncoderStream, FloatArray, StreamingSpec


def lacking(backend: str, provider: str) -> str | None:
    """Why `backend` cannot run where onnxruntime was built without `provider`; None where it was not."""
    import onnxruntime

    known = onnxruntime.get_available_providers()
    if provider in known:
        return None
    return (
        f"backend {backend!r} needs an onnxruntime with {provider}, this one has {', '.join(known)}; "
        "install onnxruntime-gpu in its place"
    )


@dataclass(frozen=True)
class DeviceEncoder:
    """A session, shared by its streams, whose states are in the memory of `device` ("cuda")."""

    session: Any
    spec: StreamingSpec
    device: str

    def open(self, features: FloatArray, log_probs: FloatArray) -> EncoderStream:
        """See edge_speech.encoder.Encoder."""
        return DeviceStream(self, features, log_probs)


class DeviceStream:
    """See edge_speech.encoder.EncoderStream."""

    def __init__(self, encoder: DeviceEncoder, features: FloatArray, log_probs: FloatArray) -> None:
        from onnxruntime import OrtValue

        spec = encoder.spec
        self._session, self._buffers = encoder.session, (features, log_probs)
        self._zeros = [np.zeros(t.shape, t.dtype) for t in spec.state]
        self._states = [
            [OrtValue.ortvalue_from_shape_and_type(z.shape, z.dtype, encoder.device) for z in self._zeros]
            for _ in range(2)
        ]
        self._inputs = [dict(zip((t.name for t in spec.state), state, strict=True)) for state in self._states]
        self._bindings = [self._bind(spec, self._states[1 - turn]) for turn in range(2)]
        self._turn = 0
        self.reset()

    def step(self) -> None:
        """onnxruntime copies an input that its graph wants elsewhere when it is bound, and no later: features
        go to the device, a frame counter may come back. So inputs are bound in every step; where they are
        already where they must be only a pointer is set.
        https://github.com/microsoft/onnxruntime/issues/5857
        """
        binding = self._bindings[self._turn]
        binding.bind_cpu_input("features", self._buffers[0][None])
        for name, value in self._inputs[self._turn].items():
            binding.bind_ortvalue_input(name, value)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        self._turn = 1 - self._turn

    def reset(self) -> None:
        """Zeros where the next step reads its state."""
        for value, zeros in zip(self._states[0], self._zeros, strict=True):
            value.update_inplace(zeros)
        self._turn = 0

    def _bind(self, spec: StreamingSpec, new: list[Any]) -> Any:
        log_probs, binding = self._buffers[1], self._session.io_binding()
        shape = (1, *log_probs.shape)
        binding.bind_output("log_probs", "cpu", 0, log_probs.dtype, shape, log_probs.ctypes.data)
        for tensor, value in zip(spec.state, new, strict=True):
            binding.bind_ortvalue_output(spec.next_name(tensor.name), value)
        return binding
