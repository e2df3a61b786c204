"""The GPU through pycuda: its primary context, which TensorRT uses too, and memory as the board has it.

https://documen.tician.de/pycuda/driver.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """The first GPU. `shares_memory`: it and the CPU use one memory, as on every Jetson."""

    name: str
    compute_capability: str
    shares_memory: bool
    context: Any

    @contextmanager
    def current(self) -> Iterator[None]:
        """Its context is this thread's in the block; steps may come from any thread."""
        self.context.push()
        try:
            yield
        finally:
            self.context.pop()


def open_gpu() -> Gpu:
    """Raises InputError without pycuda or a GPU."""
    cuda = driver()
    try:
        cuda.init()
        device = cuda.Device(0)
        kinds = cuda.device_attribute
        attributes = kinds.INTEGRATED, kinds.CAN_MAP_HOST_MEMORY
        return Gpu(
            name=device.name(),
            compute_capability=".".join(map(str, device.compute_capability())),
            shares_memory=all(device.get_attribute(one) for one in attributes),
            context=device.retain_primary_context(),
        )
    except cuda.Error as error:
        raise InputError(f"no CUDA GPU answers here ({error}); see that its driver is loaded") from None


def driver() -> Any:
    """pycuda.driver. Raises InputError where it does not load."""
    try:
        import pycuda.driver
    except ImportError as error:
        raise InputError(
            f'pycuda does not load here ({error}); install it with `pip install "edge-speech[jetson]"`, '
            "CUDA's bin folder on PATH"
        ) from None
    return pycuda.driver


class StepMemory(Protocol):
    """Page-locked memory that a step reads and writes on both sides of the border."""

    def allocate(self, shape: tuple[int, ...]) -> FloatArray:
        """Zeros that `bind` takes."""

    def bind(self, array: FloatArray) -> int:
        """The address by which the GPU knows `array`, valid as long as both live."""

    def upload(self, stream: Any, array: FloatArray) -> None:
        """What the CPU wrote into `array` becomes the GPU's, in the order of `stream`."""

    def download(self, stream: Any, array: FloatArray) -> None:
        """The other way."""


class MappedMemory:
    """CPU and GPU share memory: both use the same bytes, nothing is copied."""

    def allocate(self, shape: tuple[int, ...]) -> FloatArray:
        """See StepMemory."""
        cuda = driver()
        flags = cuda.host_alloc_flags.DEVICEMAP
        array: FloatArray = cuda.pagelocked_zeros(shape, np.float32, mem_flags=flags)
        return array

    def bind(self, array: FloatArray) -> int:
        """See StepMemory."""
        return int(array.base.get_device_pointer())  # type: ignore[union-attr]

    def upload(self, stream: Any, array: FloatArray) -> None:
        """Nothing to do."""

    def download(self, stream: Any, array: FloatArray) -> None:
        """Nothing to do."""


class CopiedMemory:
    """The GPU has memory of its own: asynchronous copies from and to page-locked arrays."""

    def __init__(self) -> None:
        self._twins: dict[int, Any] = {}

    def allocate(self, shape: tuple[int, ...]) -> FloatArray:
        """See StepMemory."""
        array: FloatArray = driver().pagelocked_zeros(shape, np.float32)
        return array

    def bind(self, array: FloatArray) -> int:
        """See StepMemory."""
        self._twins[id(array)] = driver().mem_alloc(array.nbytes)
        return int(self._twins[id(array)])

    def upload(self, stream: Any, array: FloatArray) -> None:
        """See StepMemory."""
        driver().memcpy_htod_async(self._twins[id(array)], array, stream)

    def download(self, stream: Any, array: FloatArray) -> None:
        """See StepMemory."""
        driver().memcpy_dtoh_async(array, self._twins[id(array)], stream)


def step_memory(gpu: Gpu) -> StepMemory:
    """The kind that suits the board."""
    return MappedMemory() if gpu.shares_memory else CopiedMemory()


def is_page_locked(array: FloatArray) -> bool:
    """Whether `array` came from `StepMemory.allocate`."""
    return isinstance(array.base, driver().PagelockedHostAllocation)
