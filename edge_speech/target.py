"""Target profiles: one TOML file per device, data only. docs/targets.md says what each key means."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError
from edge_speech.fields import Table, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFERENCES = ("speed", "size")
ARITHMETIC = ("fp32", "fp16", "int8")
# What a source may be besides an address: said here, or by our own benchmarks.
SOURCE_KINDS = ("https://", "measured: ", "assumed: ", "chosen: ")
_VERSION = re.compile(r"\d+(\.\d+){1,3}")


@dataclass(frozen=True)
class Processor:
    """`operations_per_clock` of one core (of a GPU: one multiprocessor) by arithmetic (`ARITHMETIC`): fused
    multiply-adds × lanes × 2. What it lacks is computed in fp32."""

    name: str
    operations_per_clock: dict[str, float]

    def peak_gops(self, arithmetic: str, ghz: float, count: int = 1) -> float:
        """10⁹ operations a second of `count` cores at `ghz`: cores × GHz × operations per clock."""
        per_clock = self.operations_per_clock
        return count * ghz * per_clock.get(arithmetic, per_clock["fp32"])


@dataclass(frozen=True)
class Gpu(Processor):
    """`backends` run on it, all others on the CPU. `jetpack`: the TensorRT that each JetPack release brings;
    `default_jetpack` is the one to build for."""

    backends: tuple[str, ...]
    compute_capability: str
    dla_cores: int
    jetpack: dict[str, str]
    default_jetpack: str

    @property
    def recipe(self) -> dict[str, Any]:
        """What a converter writes down for the build on the board."""
        version = self.jetpack[self.default_jetpack]
        return {
            "compute_capability": self.compute_capability,
            "dla_cores": self.dla_cores,
            "tensorrt": version,
            "tensorrt_major": int(version.split(".")[0]),
        }


@dataclass(frozen=True)
class PowerMode:
    """Clocks and bandwidth of one setting of the device; `gpu_cores` are its multiprocessors."""

    name: str
    cpu_cores: int
    cpu_ghz: float
    memory_bandwidth_gb_s: float
    gpu_cores: int = 0
    gpu_ghz: float = 0.0


@dataclass(frozen=True)
class Target:
    """One device: what it is, what bounds it, and which artifacts are worth making for it.

    `backends` in the order of preference. `tiles` by arithmetic: the widths that fill its multiplying units.
    `overhead_us` by backend: what a graph's node costs besides its arithmetic. `sources` has one for every
    figure, by its path in the file; those in `unconfirmed` were not found at first hand.
    """

    name: str
    description: str
    arch: str
    cores: int
    ram_mib: int
    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    prefer: str
    latency_budget_ms: float
    artifact_limit_mib: float
    memory_limit_mib: float
    tiles: dict[str, int]
    overhead_us: dict[str, float]
    cpu: Processor
    gpu: Gpu | None
    power_modes: tuple[PowerMode, ...]
    sources: dict[str, str] = field(repr=False)
    unconfirmed: tuple[str, ...] = ()

    @property
    def recipe(self) -> dict[str, Any]:
        """Facts about the device for the converters; empty without a GPU."""
        return self.gpu.recipe if self.gpu else {}

    def processor(self, backend: str) -> Processor:
        """What `backend` computes on."""
        return self.gpu if self.gpu and backend in self.gpu.backends else self.cpu

    def peak_gops(self, backend: str, arithmetic: str, mode: PowerMode) -> float:
        """10⁹ operations a second of what `backend` computes on: one core of the CPU, or the whole GPU."""
        processor = self.processor(backend)
        if processor is self.cpu:
            return processor.peak_gops(arithmetic, mode.cpu_ghz)
        return processor.peak_gops(arithmetic, mode.gpu_ghz, mode.gpu_cores)

    def as_json(self) -> dict[str, Any]:
        """Plain data; each power mode with its peaks (a CPU's of one core) in 10⁹ operations a second."""
        document = asdict(self)
        for plain, mode in zip(document["power_modes"], self.power_modes, strict=True):
            plain["cpu_peak_gops"] = _peaks(self.cpu, mode.cpu_ghz, 1)
            plain["gpu_peak_gops"] = _peaks(self.gpu, mode.gpu_ghz, mode.gpu_cores) if self.gpu else None
        return document


def _peaks(processor: Processor, ghz: float, count: int) -> dict[str, float]:
    return {a: round(processor.peak_gops(a, ghz, count), 1) for a in processor.operations_per_clock}


def targets_folder() -> Path:
    """Where the profiles lie: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    installed = package / "targets"
    return installed if installed.is_dir() else package.parent / "targets"


def list_targets() -> list[Target]:
    """All profiles, by name. Raises InputError if one cannot be read."""
    return [read_target(path) for path in sorted(targets_folder().glob("*.toml"))]


def load_target(name: str) -> Target:
    """The profile called `name`. Raises InputError that offers the nearest names."""
    known = sorted(path.stem for path in targets_folder().glob("*.toml"))
    if name in known:
        return read_target(targets_folder() / f"{name}.toml")
    raise InputError(f"unknown target {name!r}; {nearest(name, known)} `edge-speech targets` lists them all")


# -- reading ------------------------------------------------------------------------------------------------

_KEYS = ("name", "description", "device", "cpu", "gpu", "optimize", "overhead_us", "power_modes", "sources")
_LIMITS = ("latency_budget_ms", "artifact_limit_mib", "memory_limit_mib", "tiles")
_OPTIMIZE = ("backends", "precisions", "prefer", *_LIMITS)
_MODE = ("name", "cpu_cores", "cpu_ghz", "gpu_cores", "gpu_ghz", "memory_bandwidth_gb_s")
_PROCESSOR = ("name", "operations_per_clock")
_GPU = (*_PROCESSOR, "backends", "compute_capability", "dla_cores", "jetpack", "default_jetpack")


def read_target(path: Path) -> Target:
    """Read one TOML profile. Raises InputError."""
    table = Table.of(read_toml(path), str(path)).only(*_KEYS, "unconfirmed")
    if table.text("name") != path.stem:
        raise table.wrong("name", f"the file's name, {path.stem!r}")
    device, optimize = table.table("device").only("arch", "cores", "ram_mib"), table.table("optimize")
    if optimize.only(*_OPTIMIZE).text("prefer") not in PREFERENCES:
        raise optimize.wrong("prefer", f"one of {', '.join(PREFERENCES)}")
    cores, backends = device.integer("cores", 1, 1024), optimize.strings("backends")
    gpu = _read_gpu(table.table("gpu").only(*_GPU), backends) if "gpu" in table.data else None
    tiles = optimize.table("tiles").only(*ARITHMETIC)
    return Target(
        name=path.stem,
        description=table.text("description"),
        arch=device.text("arch"),
        cores=cores,
        ram_mib=device.integer("ram_mib", 1, 1 << 24),
        backends=backends,
        precisions=optimize.strings("precisions"),
        prefer=optimize.text("prefer"),
        latency_budget_ms=optimize.number("latency_budget_ms", 0.1, 60_000),
        artifact_limit_mib=optimize.number("artifact_limit_mib", 0.01, 1 << 24),
        memory_limit_mib=optimize.number("memory_limit_mib", 0.01, 1 << 24),
        tiles={name: tiles.integer(name, 1, 1024) for name in tiles.data},
        overhead_us=_read_overhead(table, backends),
        cpu=Processor(**_read_processor(table.table("cpu").only(*_PROCESSOR))),
        gpu=gpu,
        power_modes=_read_modes(table, cores, gpu),
        sources=_read_sources(table),
        unconfirmed=_read_unconfirmed(table),
    )


def _read_processor(table: Table) -> dict[str, Any]:
    per_clock = table.numbers("operations_per_clock", ARITHMETIC, 0.5, 1e6)
    if "fp32" not in per_clock:
        raise table.wrong("operations_per_clock", "a table with fp32 in it")
    return {"name": table.text("name"), "operations_per_clock": per_clock}


def _read_gpu(table: Table, backends: tuple[str, ...]) -> Gpu:
    jetpack = table.table("jetpack")
    for release in jetpack.data:
        if not _VERSION.fullmatch(jetpack.text(release)):
            raise jetpack.wrong(release, "the TensorRT version of that JetPack release, such as 10.3.0")
    if table.text("default_jetpack") not in jetpack.data:
        raise table.wrong("default_jetpack", f"one of {', '.join(jetpack.data)}")
    if not re.fullmatch(r"\d{1,2}\.\d", table.text("compute_capability")):
        raise table.wrong("compute_capability", "such as 8.7")
    if unknown := [b for b in table.strings("backends") if b not in backends]:
        raise table.wrong("backends", f"some of {', '.join(backends)}, without {unknown[0]}")
    return Gpu(
        **_read_processor(table),
        backends=table.strings("backends"),
        compute_capability=table.text("compute_capability"),
        dla_cores=table.integer("dla_cores", 0, 16),
        jetpack=dict(jetpack.data),
        default_jetpack=table.text("default_jetpack"),
    )


def _read_overhead(table: Table, backends: tuple[str, ...]) -> dict[str, float]:
    found = table.numbers("overhead_us", backends, 0, 1e4)
    if missing := [backend for backend in backends if backend not in found]:
        raise table.wrong("overhead_us", f"a table with every backend, {missing[0]} too")
    return found


def _read_modes(table: Table, cores: int, gpu: Gpu | None) -> tuple[PowerMode, ...]:
    modes = tuple(_read_mode(mode.only(*_MODE), cores, gpu) for mode in table.tables("power_modes", 32))
    if not modes or len({mode.name for mode in modes}) != len(modes):
        raise table.wrong("power_modes", "at least one, each with a name of its own")
    return modes


def _read_mode(table: Table, cores: int, gpu: Gpu | None) -> PowerMode:
    if gpu is None:
        table = table.only(*(key for key in _MODE if not key.startswith("gpu_")))
    return PowerMode(
        name=table.text("name"),
        cpu_cores=table.integer("cpu_cores", 1, cores),
        cpu_ghz=table.number("cpu_ghz", 0.05, 10),
        memory_bandwidth_gb_s=table.number("memory_bandwidth_gb_s", 0.1, 1e4),
        gpu_cores=table.integer("gpu_cores", 1, 1024) if gpu else 0,
        gpu_ghz=table.number("gpu_ghz", 0.05, 10) if gpu else 0.0,
    )


def _read_sources(table: Table) -> dict[str, str]:
    sources, figures = table.table("sources"), tuple(_figures(table))
    for figure in figures:
        if not sources.text(figure, "").startswith(SOURCE_KINDS):
            raise sources.wrong(figure, f"where the figure is from: {', '.join(map(repr, SOURCE_KINDS))} …")
    return dict(sources.only(*figures).data)


def _read_unconfirmed(table: Table) -> tuple[str, ...]:
    names = table.strings("unconfirmed") if "unconfirmed" in table.data else ()
    figures = tuple(_figures(table))
    for name in names:
        if name not in figures:
            raise InputError(f"{table.where}: unconfirmed: unknown figure {name!r}; {nearest(name, figures)}")
    return names


def _figures(table: Table) -> Iterator[str]:
    """Paths of everything in the file that is a figure about the device, and so has a source."""
    yield from ("device.cores", "device.ram_mib", "cpu.operations_per_clock", "power_modes")
    yield from (f"optimize.{key}" for key in _LIMITS)
    yield from (f"overhead_us.{backend}" for backend in table.table("overhead_us").data)
    if "gpu" in table.data:
        yield from (
            f"gpu.{key}" for key in ("operations_per_clock", "compute_capability", "dla_cores", "jetpack")
        )


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises InputError with the position of the mistake."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return data
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from None
    except ValueError as error:
        raise InputError(f"{path}: not TOML ({error})") from None
