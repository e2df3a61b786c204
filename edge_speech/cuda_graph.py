"""Work of a CUDA stream captured once and launched as one graph.

pycuda has no graphs, so the driver's own functions are called:
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do meanwhile is none of the capture's business.
_THREAD_LOCAL = 1
_POINTER, _OUT = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
# In CUDA since 11.4; the names are those of the library, which the header hides behind macros.
_SIGNATURES: dict[str, list[Any]] = {
    "cuStreamBeginCapture_v2": [_POINTER, ctypes.c_int],
    "cuStreamEndCapture": [_POINTER, _OUT],
    "cuGraphInstantiateWithFlags": [_OUT, _POINTER, ctypes.c_ulonglong],
    "cuGraphLaunch": [_POINTER, _POINTER],
    "cuGraphExecDestroy": [_POINTER],
    "cuGraphDestroy": [_POINTER],
}


class CaptureFailed(RuntimeError):
    """The work cannot be captured (DLA, a synchronous call in it), or this driver has no graphs."""


class CudaGraph:
    """A captured piece of work."""

    def __init__(self, library: Any, executable: ctypes.c_void_p) -> None:
        self._library, self._executable = library, executable

    def launch(self, stream: int) -> None:
        """Enqueue the work on `stream`, a CUstream's handle. Raises CaptureFailed."""
        _call(self._library, "cuGraphLaunch", self._executable, stream)

    def __del__(self) -> None:
        self._library.cuGraphExecDestroy(self._executable)


def capture(stream: int, work: Callable[[], None]) -> CudaGraph:
    """What `work` enqueues on `stream`, a CUstream's handle, without running it.

    Whatever `work` raises, the stream is as before. Raises CaptureFailed.
    """
    library, graph, executable = _library(), ctypes.c_void_p(), ctypes.c_void_p()
    _call(library, "cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)
    try:
        work()
    except BaseException:
        library.cuStreamEndCapture(stream, ctypes.byref(graph))
        if graph:
            library.cuGraphDestroy(graph)
        raise
    _call(library, "cuStreamEndCapture", stream, ctypes.byref(graph))
    try:
        _call(library, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
    finally:
        library.cuGraphDestroy(graph)
    return CudaGraph(library, executable)


def _library() -> Any:
    try:
        library = ctypes.CDLL("libcuda.so.1")
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        return library
    except (OSError, AttributeError) as error:
        raise CaptureFailed(str(error)) from None


def _call(library: Any, name: str, *arguments: Any) -> None:
    status = getattr(library, name)(*arguments)
    if status:
        raise CaptureFailed(f"{name} gave CUDA error {status}")
