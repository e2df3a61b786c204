"""What is known of a foreign model: from its own metadata, or from a TOML file that describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import FrontendConfig, features_of, frontend_from_dict
from edge_speech.fields import Table
from edge_speech.target import read_toml

OUTPUTS = ("log_probs", "logits")
_TABLES = ("encoder", "frontend", "decoder")
_ENCODER = (
    "chunk_frames", "right_context_frames", "subsampling_factor", "padding_value", "features", "log_probs",
    "output", "state", "constants",
)  # fmt: skip
_STATE = ("name", "shape", "dtype", "input", "output")


@dataclass(frozen=True)
class StateFields:
    """One state as the file gives it: empty names and shapes are those of the graph."""

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    input: str = ""
    output: str = ""


@dataclass(frozen=True)
class Description:
    """A spec file, `docs/importing.md`; numbers of 0 and empty names were not given.

    `constants` are inputs that are the same in every step.
    """

    chunk_frames: int = 0
    right_context_frames: int = 0
    subsampling_factor: int = 0
    padding_value: float | None = None
    features: str = ""
    log_probs: str = ""
    output: str = "log_probs"
    state: tuple[StateFields, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    frontend: FrontendConfig | None = None
    blank: str = ""


def read_description(path: Path | None) -> Description:
    """Read a spec file; nothing is described where there is none. Raises InputError."""
    if path is None:
        return Description()
    table = Table.of(read_toml(path), str(path))
    _known(table, _TABLES)
    encoder, decoder = table.table("encoder", {}), table.table("decoder", {})
    _known(encoder, _ENCODER)
    _known(decoder, ("blank",))
    if encoder.text("output", "log_probs") not in OUTPUTS:
        raise encoder.wrong("output", f"one of {', '.join(OUTPUTS)}")
    padding = encoder.number("padding_value", -1e6, 1e6) if "padding_value" in encoder.data else None
    return Description(
        chunk_frames=encoder.integer("chunk_frames", 0, 10_000, 0),
        right_context_frames=encoder.integer("right_context_frames", 0, 10_000, 0),
        subsampling_factor=encoder.integer("subsampling_factor", 0, 64, 0),
        padding_value=padding,
        features=encoder.text("features", ""),
        log_probs=encoder.text("log_probs", ""),
        output=encoder.text("output", "log_probs"),
        state=tuple(_state(t) for t in encoder.tables("state", 4096)),
        constants=dict(encoder.table("constants", {}).data),
        frontend=frontend_from_dict(dict(table.table("frontend").data)) if "frontend" in table.data else None,
        blank=decoder.text("blank", ""),
    )


def _state(table: Table) -> StateFields:
    _known(table, _STATE)
    shape = table.integers("shape", 8, 1, 1 << 26) if "shape" in table.data else ()
    dtype, name = table.text("dtype", "float32"), table.text("name")
    if dtype not in ("float32", "int64"):
        raise table.wrong("dtype", "'float32' or 'int64'")
    return StateFields(name, shape, dtype, table.text("input", ""), table.text("output", ""))


def _known(table: Table, names: tuple[str, ...]) -> None:
    unknown = sorted(set(table.data) - set(names))
    if unknown:
        raise InputError(f"{table.where}: unknown key {unknown[0]!r}; known are {', '.join(names)}")


def silence(frontend: FrontendConfig) -> float:
    """What the front end makes of digital silence: the value that fills a stream's last window."""
    seconds: FloatArray = np.zeros(frontend.sample_rate, np.float32)
    return float(np.float32(features_of(seconds, frontend).mean()))
