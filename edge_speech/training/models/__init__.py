"""Model architectures. One file per architecture: a frozen `Config`, `SIZES` of it, and `build(config)`.

The files in this folder stream. `OFFLINE` names those that hear a whole recording before they answer: they
are fine-tuned and teach, and never go onto a device.
"""

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
from edge_speech.training.channels import Group, HasChannels, LayerStack, declared

OFFLINE = {"wav2vec2": "edge_speech.training.wav2vec2"}


class Model(nn.Module, ABC):
    """What training asks of a model. `config` is the architecture's frozen dataclass.

    Its `num_features` and `vocab_size` are the F and the V of what it reads and gives.
    """

    config: Any

    @property
    @abstractmethod
    def subsampling_factor(self) -> int:
        """Feature frames that a row of log_probs stands for."""

    @abstractmethod
    def parallel(self, features: Tensor) -> Tensor:
        """features (B, T, F) → log_probs (B, ceil(T / subsampling_factor), V)."""

    @abstractmethod
    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Store the corpus statistics (F,) that the model applies to its input."""


class StreamingModel(Model, HasChannels):
    """The encoder contract on the training side; `parallel` equals the chunked run."""

    spec: StreamingSpec

    @property
    def subsampling_factor(self) -> int:
        """Feature frames that a row of log_probs stands for."""
        return self.spec.subsampling_factor

    @abstractmethod
    def forward(self, features: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """features (B, T_in, F), state → log_probs (B, T_out, V) and the next state."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> tuple[Tensor, ...]:
        """The state before the first frame."""

    def channels(self) -> dict[str, list[Group]]:
        """By setting of its config: the channels that can be left out."""
        return declared(self)

    def layer_stack(self) -> LayerStack | None:
        """The layers that can be left out, None where there are none."""
        return None


def available() -> list[str]:
    """Names of the streaming architectures: those there is a file for."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")


def build(architecture: str, config: dict[str, Any]) -> Model:
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
        model: Model = module.build(replace(base, **settings))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot build {architecture} from its settings: {error}") from error
    return model


def start(architecture: str, config: dict[str, Any], root: Path) -> Model:
    """The model of a training run: as `build`, or of an offline architecture with the weights in the file
    `config["weights"]`, a path relative to `root`. Raises InputError."""
    settings = dict(config)
    weights = settings.pop("weights", None)
    if weights is not None and not isinstance(weights, str):
        raise InputError(f"recipe: model.weights must be the name of a file, got {weights!r}")
    if architecture not in OFFLINE:  # what weights it takes depends on the recipe's tokens: see fine_tune.py
        return build(architecture, settings)
    if weights is None:
        raise InputError(
            f"{architecture} is fine-tuned, not trained from nothing; set model.weights to a file of weights"
        )
    model: Model = _module(architecture).fine_tune(root / weights, settings)
    return model


def config_of(model: Model) -> dict[str, Any]:
    """The plain data that `build` makes `model` from."""
    return asdict(model.config)


def _module(architecture: str) -> ModuleType:
    if architecture in OFFLINE:
        return importlib.import_module(OFFLINE[architecture])
    if architecture not in available():
        names = ", ".join([*available(), *OFFLINE])
        raise InputError(f"unknown architecture {architecture!r}; there are {names}")
    return importlib.import_module(f"{__name__}.{architecture}")
