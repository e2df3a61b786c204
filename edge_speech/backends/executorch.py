"""ExecuTorch's runtime (.pte), as phones run it; here it needs the `executorch` package, and so torch."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.encoder import EncoderStream, FloatArray, StreamingSpec
from edge_speech.errors import InputError

REQUIRES = "executorch"
EXTRA = 'pip install "edge-speech[executorch]"'

_METHOD = "forward"
# https://github.com/pytorch/executorch/blob/main/runtime/core/portable_type/scalar_type.h
_DTYPES = {0: "uint8", 1: "int8", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 11: "bool"}
_Tensors = list[tuple[tuple[int, ...], str]]


def load(path: Path, spec: StreamingSpec, num_threads: int) -> ExecutorchEncoder:
    """Open a .pte file whose inputs and outputs must be those of `spec`, and try one step. Raises InputError.

    Sets the number of XNNPACK's threads for the process. The file is a program of known operators; it brings
    no code of its own.
    """
    with _quiet():
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(num_threads)
    try:
        program = Runtime.get().load_program(path)
        method = program.load_method(_METHOD)
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"{path}: ExecuTorch cannot load it ({_reason(error)}); it is truncated, or of another release; "
            "make the bundle again"
        ) from None
    _check(path, method.metadata, spec)
    encoder = ExecutorchEncoder(program, method, spec)
    _try_step(path, encoder)
    return encoder


@dataclass(frozen=True)
class ExecutorchEncoder:
    """A loaded method, shared by its streams: all state is an argument. `program` keeps its memory alive."""

    program: Any
    method: Any
    spec: StreamingSpec

    def open(self, features: FloatArray, log_probs: FloatArray) -> EncoderStream:
        """See edge_speech.encoder.Encoder."""
        return _ExecutorchStream(self.method, self.spec, features, log_probs)


class _ExecutorchStream:
    def __init__(self, method: Any, spec: StreamingSpec, features: FloatArray, log_probs: FloatArray) -> None:
        import torch

        self._method, self._spec = method, spec
        self._features = torch.from_numpy(features)[None]
        self._log_probs = torch.from_numpy(log_probs)
        self._state: list[Any] = []
        self.reset()

    def step(self) -> None:
        """The runtime gives copies of its outputs: another stream's step does not change our state."""
        log_probs, *self._state = self._method.execute((self._features, *self._state))
        self._log_probs.copy_(log_probs[0])

    def reset(self) -> None:
        import torch

        self._state = [torch.zeros(t.shape, dtype=getattr(torch, t.dtype)) for t in self._spec.state]


def _check(path: Path, meta: Any, spec: StreamingSpec) -> None:
    """A step on tensors of other shapes would read beyond them or fail inside: compare before."""
    state: _Tensors = [(tuple(t.shape), t.dtype) for t in spec.state]
    features = ((1, spec.window_frames, spec.num_features), "float32")
    log_probs = ((1, spec.output_frames, spec.vocab_size), "float32")
    inputs = [meta.input_tensor_meta(i) for i in range(meta.num_inputs())]
    outputs = [meta.output_tensor_meta(i) for i in range(meta.num_outputs())]
    for kind, found, expected in (
        ("inputs", _tensors(inputs), [features, *state]),
        ("outputs", _tensors(outputs), [log_probs, *state]),
    ):
        if found != expected:
            raise InputError(f"{path}: its {kind} are {found[:6]}, the manifest says {expected[:6]}")


def _try_step(path: Path, encoder: ExecutorchEncoder) -> None:
    """One step on zeros: some damage shows only when it runs."""
    spec = encoder.spec
    features = np.zeros((spec.window_frames, spec.num_features), np.float32)
    log_probs = np.zeros((spec.output_frames, spec.vocab_size), np.float32)
    try:
        encoder.open(features, log_probs).step()
    except RuntimeError as error:
        raise InputError(f"{path}: a step fails ({_reason(error)}); make the bundle again") from None


def _tensors(metas: list[Any]) -> _Tensors:
    return [(tuple(meta.sizes()), _dtype_name(meta.dtype())) for meta in metas]


def _dtype_name(code: int) -> str:
    return _DTYPES.get(code, f"type {code}")


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """The runtime logs as it starts and, from C++, writes to stderr what it does not find on this machine."""
    logged, stderr, nowhere = logging.root.manager.disable, os.dup(2), os.open(os.devnull, os.O_WRONLY)
    sys.stderr.flush()
    os.dup2(nowhere, 2)
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logged)
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
