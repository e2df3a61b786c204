"""PyTorch's lite interpreter (.ptl), as Android runs it; here it needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.encoder import EncoderStream, FloatArray, StreamingSpec
from edge_speech.errors import InputError

REQUIRES = "torch"
EXTRA = 'pip install "edge-speech[tools]"'


def load(path: Path, spec: StreamingSpec, num_threads: int) -> LiteEncoder:
    """Open a .ptl file and try one step. Sets torch's thread count for the process. Raises InputError."""
    import torch

    torch.set_num_threads(num_threads)
    try:
        module = load_module(path)
    except RuntimeError as error:
        raise InputError(f"{path}: {_why_not(str(error))}") from None
    encoder = LiteEncoder(module, spec)
    _try_step(path, encoder)
    return encoder


def _why_not(said: str) -> str:
    if missing := re.search(r"ops cannot be found: \[(.*?)\]", said):
        return (
            f"it needs operators that the PyTorch here does not have ({missing[1].strip(' ,')}); install the "
            "one it was made with, or make the bundle again"
        )
    return f"not a lite-interpreter file ({said.splitlines()[0]}); make the bundle again"


def load_module(path: Path) -> Any:
    """The module of a .ptl file, its int8 weights in the form of qnnpack, where PyTorch has it, as on phones.

    Those of x86 servers overflow 16-bit sums without VNNI. Raises RuntimeError.
    """
    import torch
    from torch.jit.mobile import _load_for_lite_interpreter

    before = torch.backends.quantized.engine
    try:
        if "qnnpack" in torch.backends.quantized.supported_engines:
            torch.backends.quantized.engine = "qnnpack"
        return _load_for_lite_interpreter(str(path))  # type: ignore[no-untyped-call]
    finally:
        torch.backends.quantized.engine = before


@dataclass(frozen=True)
class LiteEncoder:
    """A loaded module, shared by its streams."""

    module: Any
    spec: StreamingSpec

    def open(self, features: FloatArray, log_probs: FloatArray) -> EncoderStream:
        """See edge_speech.encoder.Encoder."""
        return _LiteStream(self.module, self.spec, features, log_probs)


class _LiteStream:
    def __init__(self, module: Any, spec: StreamingSpec, features: FloatArray, log_probs: FloatArray) -> None:
        import torch

        self._module, self._spec = module, spec
        self._features = torch.from_numpy(features)[None]
        self._log_probs = torch.from_numpy(log_probs)[None]
        self.state: list[Any] = []
        self.reset()

    def step(self) -> None:
        import torch

        with torch.inference_mode():
            log_probs, *self.state = self._module.forward(self._features, *self.state)
            self._log_probs.copy_(log_probs)

    def reset(self) -> None:
        import torch

        self.state = [torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in self._spec.state]


def _try_step(path: Path, encoder: LiteEncoder) -> None:
    """One step on zeros: the state must come back with the shapes and types it went in with."""
    spec = encoder.spec
    log_probs = np.zeros((spec.output_frames, spec.vocab_size), np.float32)
    stream = _LiteStream(
        encoder.module, spec, np.zeros((spec.window_frames, spec.num_features), np.float32), log_probs
    )
    before = [(tuple(t.shape), t.dtype) for t in stream.state]
    try:
        stream.step()
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: a step does not fit the manifest's encoder ({reason})") from None
    after = [(tuple(t.shape), t.dtype) for t in stream.state]
    if before != after:
        raise InputError(f"{path}: its state is {after[:3]}, the manifest says {before[:3]}")
