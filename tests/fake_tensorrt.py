"""TensorRT for tests: builds an "engine" that is the ONNX itself and runs it with onnxruntime on a FakeGpu.

It refuses what the real one does: flags that contradict a typed network, Q/DQ without the INT8 flag in a
network that is not typed, an engine of another version or GPU, an input without an address, a capture before
a first run. tests/test_tensorrt_bindings.py holds its surface against the real bindings of each version.
"""

from __future__ import annotations

import enum
import json
import types
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fake_pycuda import FakeGpu

INT64_SINCE = (9, 0)
_DTYPES = {onnx.TensorProto.FLOAT: "FLOAT", onnx.TensorProto.INT64: "INT64"}
_NUMPY = {"FLOAT": "float32", "INT64": "int64", "INT32": "int32"}


def module(version: str, gpu: FakeGpu, num_dla_cores: int = 2) -> types.ModuleType:
    """The module `tensorrt` of a version, on a GPU."""
    made: Any = types.ModuleType("tensorrt")
    made.__spec__, made.__version__ = ModuleSpec("tensorrt", None), version
    number = tuple(map(int, version.split(".")))[:2]
    for kind in (_enums(number), _classes(made, number, gpu, num_dla_cores)):
        for name, one in kind.items():
            setattr(made, name, one)
    return made  # type: ignore[no-any-return]


def _enums(version: tuple[int, ...]) -> dict[str, Any]:
    flags = ["GPU_FALLBACK", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE"] + ["FP16", "INT8"] * (version < (11, 0))
    creation = ["EXPLICIT_BATCH"] * (version < (11, 0)) + ["STRONGLY_TYPED"] * (version >= (10, 0))
    types = ["FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"] + ["INT64"] * (version >= INT64_SINCE)
    return {
        "BuilderFlag": enum.IntEnum("BuilderFlag", flags, start=0),
        "NetworkDefinitionCreationFlag": enum.IntEnum("NetworkDefinitionCreationFlag", creation, start=0),
        "MemoryPoolType": enum.IntEnum("MemoryPoolType", ["WORKSPACE"]),
        "DeviceType": enum.IntEnum("DeviceType", ["GPU", "DLA"], start=0),
        "HardwareCompatibilityLevel": enum.IntEnum("HardwareCompatibilityLevel", ["NONE", "AMPERE_PLUS"]),
        "TensorIOMode": enum.IntEnum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"], start=0),
        "TensorLocation": enum.IntEnum("TensorLocation", ["DEVICE", "HOST"], start=0),
        "DataType": enum.IntEnum("DataType", types, start=0),
    }


def _classes(trt: Any, version: tuple[int, ...], gpu: FakeGpu, num_dla_cores: int) -> dict[str, Any]:
    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2

        def __init__(self) -> None:
            pass

        def log(self, severity: int, msg: str) -> None:
            raise NotImplementedError

    class IProgressMonitor:
        def __init__(self) -> None:
            pass

    class ParserError:
        def desc(self) -> str:
            return "Assertion failed: no importer\nfor this"

        def node(self) -> int:
            return 3

    if version >= (10, 0):
        ParserError.node_name = lambda self: "the_node"  # type: ignore[attr-defined]
        ParserError.node_operator = lambda self: "Det"  # type: ignore[attr-defined]

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._model: Any = None
            typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
            asked = typed is not None and bool(flags & 1 << int(typed))
            self._typed = version >= (11, 0) or asked
            if version < (10, 0):
                assert flags & 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH), "implicit batch"

        @property
        def num_inputs(self) -> int:
            return len(self._model.graph.input)

        def get_input(self, index: int) -> Any:
            value = self._model.graph.input[index]
            shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
            return types.SimpleNamespace(name=value.name, shape=shape)

    class OnnxParser:
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            assert isinstance(logger, ILogger)
            self._network = network
            self.num_errors = 0

        def parse(self, model: bytes, path: str | None = None) -> bool:
            loaded = onnx.load_from_string(model)
            self.num_errors = 5 if any(node.op_type == "Det" for node in loaded.graph.node) else 0
            self._network._model = loaded
            return not self.num_errors

        def get_error(self, index: int) -> ParserError:
            assert index < self.num_errors
            return ParserError()

    class ITimingCache:
        def __init__(self, content: bytes) -> None:
            self._content = bytes(content)

        def serialize(self) -> bytes:
            return self._content

    class IBuilderConfig:
        __slots__ = (
            "default_device_type", "DLA_core", "hardware_compatibility_level",
            "_flags", "_timing", "_pools", "_profiles",
        ) + (("progress_monitor",) if version >= (10, 0) else ())  # fmt: skip

        def __init__(self) -> None:
            self._flags: set[int] = set()
            self._pools: dict[int, int] = {}
            self._timing, self._profiles, self.default_device_type = None, [], trt.DeviceType.GPU

        def set_flag(self, flag: Any) -> None:
            self._flags.add(trt.BuilderFlag(flag))

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            self._pools[pool] = pool_size

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
            return ITimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            if cache._content and cache._content.split(b" ")[0] != trt.__version__.encode():
                return ignore_mismatch
            self._timing = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._timing

        def add_optimization_profile(self, profile: Any) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            self._shapes[input] = min, opt, max

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            if not isinstance(logger, ILogger) or not gpu.depth:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger, self.num_DLA_cores = logger, num_dla_cores

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            return INetworkDefinition(flags)

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> Any:
            wrong = _contradiction(trt, version, network, config)
            if wrong:
                self._logger.log(ILogger.ERROR, wrong)
                return None
            if not _monitored(getattr(config, "progress_monitor", None)):
                return None
            config._timing = ITimingCache(trt.__version__.encode() + b" one more")
            header = {"version": trt.__version__, "gpu": gpu.name, "typed": network._typed}
            header["flags"] = sorted(flag.name for flag in config._flags)
            return json.dumps(header).encode() + b"\n" + network._model.SerializeToString()

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            assert isinstance(logger, ILogger)
            gpu.require_context()
            self._logger, self.engine_host_code_allowed, self.DLA_core = logger, False, -1

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            header, _, model = serialized_engine.partition(b"\n")
            made_for = json.loads(header)
            if (made_for["version"], made_for["gpu"]) != (trt.__version__, gpu.name):
                self._logger.log(ILogger.ERROR, "The engine plan file is not compatible with this version")
                return None
            if "VERSION_COMPATIBLE" in made_for["flags"] and not self.engine_host_code_allowed:
                self._logger.log(ILogger.ERROR, "host code is not allowed")
                return None
            return ICudaEngine(model)

    class ICudaEngine:
        def __init__(self, model: bytes) -> None:
            self._model, self._graph = model, onnx.load_from_string(model).graph
            values = [*self._graph.input, *self._graph.output]
            self._values = {value.name: value.type.tensor_type for value in values}
            self._outputs = [value.name for value in self._graph.output]
            self.num_io_tensors = len(values)

        def get_tensor_name(self, index: int) -> str:
            return list(self._values)[index]

        def get_tensor_mode(self, name: str) -> Any:
            return trt.TensorIOMode.OUTPUT if name in self._outputs else trt.TensorIOMode.INPUT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(d.dim_value for d in self._values[name].shape.dim)

        def get_tensor_dtype(self, name: str) -> Any:
            dtype = _DTYPES[self._values[name].elem_type]
            return trt.DataType["INT32" if dtype == "INT64" and version < INT64_SINCE else dtype]

        def get_tensor_location(self, name: str) -> Any:
            return trt.TensorLocation.DEVICE

        def create_execution_context(self) -> IExecutionContext:
            return IExecutionContext(self)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine, self._addresses, self._ran = engine, {}, False
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(engine._model, options)

        def set_tensor_address(self, name: str, memory: int) -> bool:
            known = name in self._engine._values and memory in gpu.memory
            if known:
                self._addresses[name] = memory
            return known

        def execute_async_v3(self, stream_handle: int) -> bool:
            gpu.require_context()
            if set(self._addresses) != set(self._engine._values):
                return False
            if stream_handle in gpu.capturing and not self._ran:
                return False
            self._ran = True
            gpu.enqueue(stream_handle, self._compute)
            return True

        def _compute(self) -> None:
            feeds = {}
            for value in self._session.get_inputs():
                array = gpu.read(self._addresses[value.name], tuple(value.shape), self._dtype(value.name))
                feeds[value.name] = array.astype("int64") if "int64" in value.type else array
            for name, array in zip(self._engine._outputs, self._session.run(None, feeds), strict=True):
                gpu.write(self._addresses[name], np.asarray(array, self._dtype(name)))

        def _dtype(self, name: str) -> str:
            return _NUMPY[self._engine.get_tensor_dtype(name).name]

    found = {name: one for name, one in locals().items() if isinstance(one, type)}
    return found if version >= (10, 0) else {k: v for k, v in found.items() if k != "IProgressMonitor"}


def _contradiction(trt: Any, version: tuple[int, ...], network: Any, config: Any) -> str | None:
    """Why the real builder gives no engine."""
    names = {flag.name for flag in config._flags}
    quantised = any(node.op_type == "QuantizeLinear" for node in network._model.graph.node)
    if network._typed and names & {"FP16", "INT8"}:
        return "precision flags in a strongly typed network"
    if not network._typed and quantised and "INT8" not in names:
        return "Q/DQ needs the INT8 flag"
    if version < (11, 0) and config.default_device_type == trt.DeviceType.DLA and "FP16" not in names:
        return "DLA runs fp16 or int8"
    return None


def _monitored(monitor: Any) -> bool:
    """What a build tells its monitor; whether it may go on."""
    if monitor is None:
        return True
    monitor.phase_start("Building Engine", None, 2)
    monitor.phase_start("Tactic Selection", "Building Engine", 3)
    told = [monitor.step_complete("Tactic Selection", step) for step in range(3)]
    monitor.phase_finish("Tactic Selection")
    told.append(monitor.step_complete("Building Engine", 1))
    monitor.phase_finish("Building Engine")
    return all(told)
