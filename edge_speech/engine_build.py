"""A TensorRT engine from a typed ONNX, by its recipe, with TensorRT's Python API (8.5 to 11).

https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/python-api-docs.html
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_speech.engine_recipe import OLDEST, EngineRecipe, Profile, version_of
from edge_speech.errors import CheckFailed, InputError

Reached = Callable[[int, int, str], None]
# Networks are strongly typed where asked from the first of these on, and always from the second on.
_TYPED, _ALWAYS_TYPED = (10, 0), (11, 0)
_COMPATIBILITY = (8, 6)
_SHOWN_ERRORS = 3


def build(trt: Any, onnx: Path, recipe: EngineRecipe, timing: Path, reached: Reached) -> bytes:
    """The serialised engine. `timing` is read and kept whatever happens; `reached` is told of progress.

    Raises InputError on what the recipe asks and this TensorRT or board does not have, CheckFailed where the
    build fails, KeyboardInterrupt where it was cancelled.
    """
    version = check_version(trt.__version__, recipe)
    logger, monitor = make_logger(trt), None
    try:
        builder = trt.Builder(logger)
    except TypeError:
        raise CheckFailed(
            f"TensorRT cannot start its builder{_said(logger)}; see that its GPU answers"
        ) from None
    network = builder.create_network(_network_flags(trt, version, recipe))
    _parse(trt, network, logger, onnx, version)
    config = _configure(trt, builder, network, recipe, version)
    if version >= _TYPED:
        monitor = config.progress_monitor = make_monitor(trt, reached)
    _use_timing_cache(config, timing)
    try:
        plan = builder.build_serialized_network(network, config)
    finally:
        _keep_timing_cache(config, timing)
    if monitor is not None and monitor.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        raise CheckFailed(
            f"TensorRT {trt.__version__} cannot build {onnx.name}{_said(logger)}; nothing was kept"
        )
    return bytes(plan)


def check_version(text: str, recipe: EngineRecipe) -> tuple[int, ...]:
    """The version as numbers. Raises InputError on one too old for the target or for this package."""
    version = version_of(text)
    least = max(OLDEST, version_of(recipe.tensorrt_minimum))
    if version < least:
        raise InputError(
            f"TensorRT {text} is too old for this bundle, which asks for {'.'.join(map(str, least))} or "
            "later; update JetPack, or use the bundle's other engine"
        )
    if version < _COMPATIBILITY and (recipe.version_compatible or recipe.hardware_compatible):
        raise InputError(
            f"compatible engines need TensorRT 8.6, this is {text}; make the bundle without them"
        )
    return version


def is_typed(version: tuple[int, ...], recipe: EngineRecipe) -> bool:
    """Whether the graph's types are the engine's. DLA took types from flags until TensorRT 10.7:
    https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/dla-strongly-typed-networks.html
    """
    return version >= _ALWAYS_TYPED or (version >= _TYPED and recipe.typed and recipe.dla_core < 0)


def make_logger(trt: Any) -> Any:
    """An ILogger that keeps what TensorRT calls errors, in `errors`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(msg.split()))

    return Logger()


def make_monitor(trt: Any, reached: Reached) -> Any:
    """An IProgressMonitor: tells of the outermost phase, and turns Ctrl-C into `cancelled` and a False.

    No exception may go through TensorRT; the same way as in NVIDIA's sample simple_progress_monitor.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self._outermost, self._step, self._steps = "", 0, 1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self._outermost, self._step, self._steps = phase_name, 0, num_steps
            self._tell(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outermost:
                self._step = step
            self._tell(phase_name)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._outermost:
                self._step = self._steps
            self._tell(phase_name)

        def _tell(self, doing: str) -> None:
            try:
                reached(self._step, self._steps, doing)
            except KeyboardInterrupt:
                self.cancelled = True

    return Monitor()


def _network_flags(trt: Any, version: tuple[int, ...], recipe: EngineRecipe) -> int:
    creation = trt.NetworkDefinitionCreationFlag
    if is_typed(version, recipe):
        return 1 << int(creation.STRONGLY_TYPED)
    return 0 if version >= _TYPED else 1 << int(creation.EXPLICIT_BATCH)


def _parse(trt: Any, network: Any, logger: Any, onnx: Path, version: tuple[int, ...]) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(onnx.read_bytes()):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    shown = "; ".join(_in_words(error, version) for error in errors[:_SHOWN_ERRORS])
    more = f" and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    raise CheckFailed(
        f"TensorRT {trt.__version__} does not take {onnx.name}: {shown or 'no reason given'}{more}"
    )


def _in_words(error: Any, version: tuple[int, ...]) -> str:
    operator = f"{error.node_operator()} {error.node_name()}" if version >= _TYPED else "node"
    return " ".join(f"{error.desc()} ({operator}, number {error.node()})".split())


def _configure(trt: Any, builder: Any, network: Any, recipe: EngineRecipe, version: tuple[int, ...]) -> Any:
    config, flags = builder.create_builder_config(), trt.BuilderFlag
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_mib << 20)
    if not is_typed(version, recipe):
        config.set_flag(flags.FP16)
        if recipe.precision == "int8-static":
            config.set_flag(flags.INT8)
    if recipe.sparse_weights:
        config.set_flag(flags.SPARSE_WEIGHTS)
    if recipe.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if recipe.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if recipe.dla_core >= 0:
        _use_dla(trt, builder, config, recipe)
    _use_profiles(builder, network, config, recipe.profiles)
    return config


def _use_dla(trt: Any, builder: Any, config: Any, recipe: EngineRecipe) -> None:
    """What the DLA can run goes there, the rest to the GPU. Until TensorRT 10.7 it knew no Q/DQ:
    https://developer.nvidia.com/blog/deploying-deep-neural-networks-on-dla-using-tensorrt
    """
    if recipe.precision != "fp16":
        raise InputError(f"a DLA core runs fp16 here, not {recipe.precision}; use --precision fp16")
    if recipe.dla_core >= builder.num_DLA_cores:
        raise InputError(
            f"DLA core {recipe.dla_core} is asked for, and TensorRT {trt.__version__} finds "
            f"{builder.num_DLA_cores} DLA cores here; leave out --dla-core to use the GPU alone"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = recipe.dla_core
    if recipe.gpu_fallback:
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _use_profiles(builder: Any, network: Any, config: Any, profiles: tuple[Profile, ...]) -> None:
    """The shapes of the graph's inputs are those of the recipe; those left open get its profile."""
    wanted = {profile.name: profile for profile in profiles}
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    found = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    odd = sorted(set(found) ^ set(wanted)) or [n for n in found if not _fits(found[n], wanted[n])]
    if odd:
        raise InputError(
            f"the graph's inputs and engine.toml differ in {', '.join(odd[:4])}; make the bundle again"
        )
    if not any(-1 in shape for shape in found.values()):
        return
    profile = builder.create_optimization_profile()
    for name, one in wanted.items():
        profile.set_shape(name, one.min, one.opt, one.max)
    config.add_optimization_profile(profile)


def _fits(shape: tuple[int, ...], profile: Profile) -> bool:
    if len(shape) != len(profile.opt):
        return False
    sizes = zip(shape, profile.min, profile.max, strict=True)
    return all(size == -1 or least == size == most for size, least, most in sizes)


def _use_timing_cache(config: Any, path: Path) -> None:
    """What earlier builds measured, where it was on this TensorRT and board; else an empty cache."""
    known = path.read_bytes() if path.is_file() else b""
    for content in (known, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def _keep_timing_cache(config: Any, path: Path) -> None:
    """A build without it takes longer and is no worse, so no failure here ends one."""
    with suppress(OSError, TypeError, AttributeError):
        content = bytes(config.get_timing_cache().serialize())
        fresh = path.with_name(f".new-{path.name}")
        fresh.write_bytes(content)
        fresh.replace(path)


def _said(logger: Any) -> str:
    return f" ({'; '.join(logger.errors[:_SHOWN_ERRORS])})" if logger.errors else ""
