"""onnxruntime on an NVIDIA GPU, through CUDA: the files of `onnxruntime`, when asked for by name.

A streaming step is small: the CPU is often faster, and always cheaper to start.
"""

from __future__ import annotations

from pathlib import Path

from edge_speech.backends.onnxruntime import open_session
from edge_speech.encoder import StreamingSpec
from edge_speech.onnx_device import DeviceEncoder, lacking

REQUIRES = "onnxruntime"
EXTRA = "pip install onnxruntime-gpu"
RUNS = ("onnxruntime",)
ON_REQUEST = True

# TensorFloat-32 keeps ten bits of a product's factors; fp32 shall be fp32.
# https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html
CUDA = ("CUDAExecutionProvider", {"use_tf32": "0"})


def obstacle() -> str | None:
    """Why this onnxruntime has no CUDA."""
    return lacking("onnxruntime_cuda", CUDA[0])


def load(path: Path, spec: StreamingSpec, num_threads: int) -> DeviceEncoder:
    """Open an ONNX file on the first GPU; `num_threads` is for what falls to the CPU. Raises InputError."""
    return DeviceEncoder(open_session(path, spec, num_threads, [CUDA]), spec, "cuda")
