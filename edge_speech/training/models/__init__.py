"""Model architectures. One file per architecture: a frozen `Config`, `SIZES` of it, and `build(config)`."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from edge_speech.encoder import StreamingSpec
from edge_speech.errors import InputError


class StreamingModel(nn.Module, ABC):
    """The encoder contract on the training side. `config` is the architecture's frozen dataclass."""

    spec: StreamingSpec
    config: Any

    @abstractmethod
    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """features (B, T_in, F), state → log_probs (B, T_out, V) and the next state."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """The state before the first frame."""

    @abstractmethod
    def parallel(self, features: Tensor) -> Tensor:
        """features (B, T, F) → log_probs (B, ceil(T / subsampling_factor), V), equal to the chunked run."""

    @abstractmethod
    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Store the corpus statistics (F,) that the model applies to its input."""


def available() -> list[str]:
    """Names of the architectures there is a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def build(architecture: str, config: dict[str, Any]) -> StreamingModel:
    """Build `architecture` from plain data.

    `config` holds fields of its `Config`; a key `size` starts from one of its `SIZES`. Raises InputError.
    """
    module = _module(architecture)
    known = {f.name for f in fields(module.Config)}
    settings = dict(config)
    size = settings.pop("size", None)
    if size is not None and size not in module.SIZES:
        raise InputError(f"unknown size {size!r} of {architecture}; it has {', '.join(module.SIZES)}")
    if unknown := sorted(set(settings) - known):
        raise InputError(f"{architecture} has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
    base = module.SIZES[size] if size else module.Config()
    try:
        model: StreamingModel = module.build(replace(base, **settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot build {architecture} from its settings: {error}") from error
    return model


def config_of(model: StreamingModel) -> dict[str, Any]:
    """The plain data that `build` makes `model` from."""
    return asdict(model.config)


def _module(architecture: str) -> ModuleType:
    if architecture not in available():
        raise InputError(f"unknown architecture {architecture!r}; there are {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{architecture}")
