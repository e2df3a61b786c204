"""Target profiles: one TOML file per device, data only."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError
from edge_speech.fields import Table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFERENCES = ("speed", "size")


@dataclass(frozen=True)
class Target:
    """One device: what it is, which artifacts are worth making for it, and the converters' own `recipe`."""

    name: str
    description: str
    arch: str
    cores: int
    ram_mib: int
    backends: tuple[str, ...]
    precisions: tuple[str, ...]
    prefer: str
    latency_budget_ms: float
    recipe: dict[str, Any]


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
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    raise InputError(f"unknown target {name!r}; {offer} `edge-speech targets` lists them all")


def read_target(path: Path) -> Target:
    """Read one TOML profile. Raises InputError."""
    table = Table.of(read_toml(path), str(path))
    device, optimize = table.table("device"), table.table("optimize")
    if table.text("name") != path.stem:
        raise table.wrong("name", f"the file's name, {path.stem!r}")
    if optimize.text("prefer") not in PREFERENCES:
        raise optimize.wrong("prefer", f"one of {', '.join(PREFERENCES)}")
    return Target(
        name=path.stem,
        description=table.text("description"),
        arch=device.text("arch"),
        cores=device.integer("cores", 1, 1024),
        ram_mib=device.integer("ram_mib", 1, 1 << 24),
        backends=optimize.strings("backends"),
        precisions=optimize.strings("precisions"),
        prefer=optimize.text("prefer"),
        latency_budget_ms=optimize.number("latency_budget_ms", 0.1, 60_000),
        recipe=dict(table.table("recipe", {}).data),
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
