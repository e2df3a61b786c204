"""What passes share: what a pass may read, and what it gives back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from edge_speech.encoder import FloatArray, StreamingSpec
from edge_speech.features import FrontendConfig
from edge_speech.training.scales import Scales


@dataclass(frozen=True)
class Source:
    """What a pass may read: the model, and what earlier passes wrote into `directory`.

    `calibration` holds the features (T, F) of whole recordings, perhaps computed each time they are
    read; empty when none were given. `recipe` is the target's table of that name, for facts about the device
    that a converter writes down. `scales` are those that quantisation-aware training left in the checkpoint.
    `frontend` and `tokens` are the model's, for engines that bring a device line of their own.
    """

    model: torch.nn.Module
    spec: StreamingSpec
    directory: Path
    calibration: Sequence[FloatArray] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scales: Scales = field(default_factory=dict)
    frontend: FrontendConfig | None = None
    tokens: Sequence[str] = ()


@dataclass(frozen=True)
class PassResult:
    """One file an engine loads. `status` is `built` or `planned`; only a parity check makes it `verified`.

    `check_backend` is the engine that can run this file on the host, None when no engine here can.
    `companions` are further files of the bundle that belong to it (a build recipe).
    """

    path: Path
    backend: str
    precision: str
    status: str
    check_backend: str | None
    command: str | None = None
    companions: tuple[Path, ...] = ()

    @property
    def key(self) -> str:
        """`backend/precision`, the artifact's name in plans and reports."""
        return f"{self.backend}/{self.precision}"


class Pass(Protocol):
    """A module of `convert/` or `quantize/`: constants that say what it makes, a frozen Config and run().

    `NEEDS` names the passes (file stems) whose artifacts it reads, or is empty. A pass with
    `ON_REQUEST = True` makes what another program loads and our runtime does not: for any target, where
    --backends names it. One with `NEEDS_LAYERS = True` reads the layers of a PyTorch model, which a bundle's
    graph has not.
    Of a pass that needs calibration, `SCALES_SUFFICE = True` says that scales in the checkpoint do instead;
    `REQUIRES` names a package, and the extra of ours that brings it, without which the pass is left out.
    `remark()`, if there, is said in the plan.
    """

    BACKEND: str
    PRECISION: str
    NEEDS: tuple[str, ...]
    NEEDS_CALIBRATION: bool

    def run(self, source: Source) -> PassResult:
        """Write the artifact into `source.directory`. Raises InputError or CheckFailed."""


def needs_recordings(of: Pass, scaled: bool) -> bool:
    """Must `--calibration` be given for this pass? `scaled`: the checkpoint has scales for its layers."""
    return of.NEEDS_CALIBRATION and not (scaled and getattr(of, "SCALES_SUFFICE", False))


_FOLDERS = ("convert", "quantize")


def on_request(passes: Mapping[str, Pass]) -> tuple[str, ...]:
    """Backends that only --backends brings in."""
    return tuple(dict.fromkeys(p.BACKEND for p in passes.values() if getattr(p, "ON_REQUEST", False)))


def load_passes() -> dict[str, Pass]:
    """Every pass by file stem: the files of `convert/` and `quantize/` are the registry."""
    return {
        path.stem: cast(Pass, importlib.import_module(f"edge_speech_tools.{folder}.{path.stem}"))
        for folder in _FOLDERS
        for path in sorted((Path(__file__).parent / folder).glob("*.py"))
        if path.stem != "__init__"
    }
