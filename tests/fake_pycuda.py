"""A GPU of our own for tests: pycuda's driver and CUDA's graphs, as strict as the real ones.

What was enqueued runs when its stream is synchronised, or never where it is only captured.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np


class Error(Exception):
    """pycuda.driver.Error."""


class PagelockedHostAllocation(bytearray):
    """What a page-locked array rests on."""

    address: int | None = None

    def get_device_pointer(self) -> int:
        if self.address is None:
            raise Error("cuMemHostGetDevicePointer failed: it was not allocated with DEVICEMAP")
        return self.address


class FakeGpu:
    """One GPU, its memory, its streams and its context."""

    def __init__(
        self, name: str = "Orin", capability: tuple[int, int] = (8, 7), integrated: bool = True
    ) -> None:
        self.name, self.capability, self.integrated = name, capability, integrated
        self.memory: dict[int, Any] = {}
        self.depth = 0
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.launches = self.copies = 0
        self.refuses_capture = False
        self._numbers = itertools.count(1)

    def require_context(self) -> None:
        if not self.depth:
            raise Error("invalid device context")

    def new(self, content: Any) -> int:
        self.require_context()
        address = next(self._numbers) << 12
        self.memory[address] = content
        return address

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        self.require_context()
        self.capturing.get(stream, self.queues[stream]).append(work)

    def synchronize(self, stream: int) -> None:
        self.require_context()
        if stream in self.capturing:
            raise Error("operation not permitted when stream is capturing")
        work, self.queues[stream] = self.queues[stream], []
        for one in work:
            one()

    def read(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
        count = int(np.prod(shape))
        return np.frombuffer(self.memory[address], dtype, count).reshape(shape).copy()

    def write(self, address: int, array: Any) -> None:
        content = array.tobytes()
        self.memory[address][: len(content)] = content


def driver(gpu: FakeGpu) -> types.ModuleType:
    """The module pycuda.driver."""
    module: Any = types.ModuleType("pycuda.driver")
    module.__spec__ = ModuleSpec("pycuda.driver", None)
    module.Error, module.PagelockedHostAllocation = Error, PagelockedHostAllocation
    module.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)
    module.device_attribute = types.SimpleNamespace(INTEGRATED=18, CAN_MAP_HOST_MEMORY=19)

    class Context:
        def push(self) -> None:
            gpu.depth += 1

        @staticmethod
        def pop() -> None:
            gpu.require_context()
            gpu.depth -= 1

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def name(self) -> str:
            return gpu.name

        def compute_capability(self) -> tuple[int, int]:
            return gpu.capability

        def get_attribute(self, attribute: int) -> int:
            return int(gpu.integrated) if attribute == 18 else 1

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self) -> None:
            gpu.require_context()
            self.handle = next(gpu._numbers)
            gpu.queues[self.handle] = []

        def synchronize(self) -> None:
            gpu.synchronize(self.handle)

    class DeviceAllocation:
        def __init__(self, size: int) -> None:
            self._address = gpu.new(bytearray(b"\xff" * size))

        def __int__(self) -> int:
            return self._address

    def pagelocked_zeros(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
        held = PagelockedHostAllocation(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        address = gpu.new(held)
        held.address = address if mem_flags & 2 else None
        return np.ndarray(shape, dtype, held)

    def memset_d8_async(dest: int, data: int, size: int, stream: Any = None) -> None:
        gpu.enqueue(stream.handle, lambda: gpu.write(dest, np.full(size, data, np.uint8)))

    def memcpy_htod_async(dest: Any, src: Any, stream: Any = None) -> None:
        gpu.copies += 1
        gpu.enqueue(stream.handle, lambda: gpu.write(int(dest), src))

    def memcpy_dtoh_async(dest: Any, src: Any, stream: Any = None) -> None:
        gpu.copies += 1
        assert isinstance(dest.base, PagelockedHostAllocation), "pageable memory would be copied at once"
        gpu.enqueue(stream.handle, lambda: np.copyto(dest, gpu.read(int(src), dest.shape, dest.dtype)))

    for one in (Device, Stream, pagelocked_zeros, memset_d8_async, memcpy_htod_async, memcpy_dtoh_async):
        setattr(module, one.__name__, one)
    module.Context, module.DeviceAllocation, module.mem_alloc = Context, DeviceAllocation, DeviceAllocation
    module.init = lambda: None
    return module


class GraphLibrary:
    """The functions of libcuda that `edge_speech.cuda_graph` calls; each returns a CUresult."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        if self._gpu.refuses_capture:
            return 801
        self._gpu.capturing[stream] = []
        return 0

    def cuStreamEndCapture(self, stream: int, graph: Any) -> int:
        graph._obj.value = self._keep(self._gpu.capturing.pop(stream))
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: int) -> int:
        executable._obj.value = self._keep(list(self._gpu.graphs[graph.value]))
        return 0

    def cuGraphLaunch(self, executable: Any, stream: int) -> int:
        self._gpu.launches += 1
        self._gpu.queues[stream] += self._gpu.graphs[executable.value]
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:
        del self._gpu.graphs[executable.value]
        return 0

    cuGraphDestroy = cuGraphExecDestroy

    def _keep(self, work: list[Callable[[], None]]) -> int:
        number = next(self._gpu._numbers)
        self._gpu.graphs[number] = work
        return number
