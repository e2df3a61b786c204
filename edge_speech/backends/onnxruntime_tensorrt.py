"""onnxruntime on an NVIDIA GPU, through TensorRT: the files of `onnxruntime`, when asked for by name.

TensorRT builds its engines when a file is loaded for the first time, which takes minutes; they are kept in
the bundle's `engines`, for this GPU and this TensorRT. For engines built beforehand, in half precision or
int8, and steps that are one CUDA graph see `tensorrt`.
"""

from __future__ import annotations

from pathlib import Path

from edge_speech.backends.onnxruntime import open_session
from edge_speech.backends.onnxruntime_cuda import CUDA
from edge_speech.bundle import sha256_of
from edge_speech.encoder import StreamingSpec
from edge_speech.engine_cache import FOLDER
from edge_speech.onnx_device import DeviceEncoder, lacking

REQUIRES = "onnxruntime"
EXTRA = "pip install onnxruntime-gpu"
RUNS = ("onnxruntime",)
ON_REQUEST = True

_PROVIDER = "TensorrtExecutionProvider"


def obstacle() -> str | None:
    """Why this onnxruntime has no TensorRT."""
    return lacking("onnxruntime_tensorrt", _PROVIDER)


def load(path: Path, spec: StreamingSpec, num_threads: int) -> DeviceEncoder:
    """Open an ONNX file on the first GPU; what TensorRT does not take falls to CUDA. Raises InputError."""
    providers = [(_PROVIDER, _options(path)), CUDA]
    return DeviceEncoder(open_session(path, spec, num_threads, providers), spec, "cuda")


def _options(path: Path) -> dict[str, str]:
    """An engine's name in the cache tells graphs apart, not their weights: so each file has a folder.

    https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    """
    folder = path.parent / FOLDER / f"onnxruntime-{sha256_of(path)[:16]}"
    return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
