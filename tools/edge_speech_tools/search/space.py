"""What the search chooses from: settings of a model and of its int8, each a name and a list of values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from edge_speech_tools.calibration import LAYERS
from edge_speech_tools.plan import REFERENCE
from edge_speech_tools.quantize import int8_static

RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
# In this order those that the target offers are measured before anything is searched.
PLAIN = (REFERENCE, int8_static.PRECISION, "int8-dynamic")
_INT8, _FP32 = "int8", REFERENCE

T = TypeVar("T", str, int, float)
# Takes a name and the values allowed, the plain one first, and gives one of them.
Pick = Callable[[str, Sequence[Any]], Any]


@dataclass(frozen=True)
class ModelSpace:
    """A checkpoint and what can be done to it, the plain value first; `subnetwork` is empty for an ordinary
    model, `groups` are those of its layers that can stay fp32 in int8-static."""

    name: str
    chunks: tuple[int, ...]
    ratios: tuple[float, ...]
    subnetwork: Mapping[str, tuple[int, ...]]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Space:
    """The models, the given one first, and the pass (file stem) of each precision of one `backend`."""

    models: tuple[ModelSpace, ...]
    backend: str
    passes: Mapping[str, str]


@dataclass(frozen=True)
class Settings:
    """One point of the space. `subnetwork` has config fields, `fp32` the groups that int8-static spares."""

    model: str
    precision: str
    chunk_frames: int
    pruning_ratio: float = 0.0
    subnetwork: Mapping[str, int] = field(default_factory=dict)
    fp32: tuple[str, ...] = ()

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Settings:
        """Inverse of `dataclasses.asdict`, of what went through JSON."""
        return Settings(**{**plain, "fp32": tuple(plain["fp32"])})


def settings_of(space: Space, pick: Pick) -> Settings:
    """A point of the space, by what `pick` says to each question."""
    by_name = {one.name: one for one in space.models}
    several = len(by_name) > 1
    model = by_name[pick("model", list(by_name)) if several else space.models[0].name]

    def of_model(name: str, values: Sequence[Any]) -> Any:
        if len(values) == 1:
            return values[0]
        return pick(f"{name} of {model.name}" if several else name, list(values))

    subnetwork = {name: of_model(name, values) for name, values in model.subnetwork.items()}
    ratio, chunk_frames = of_model("pruning_ratio", model.ratios), of_model("chunk_frames", model.chunks)
    precision, spared = pick("precision", list(space.passes)), []
    if precision == int8_static.PRECISION:
        spared = [group for group in model.groups if of_model(group, (_INT8, _FP32)) == _FP32]
    return Settings(model.name, precision, chunk_frames, ratio, subnetwork, tuple(spared))


def answers_of(space: Space, model: str, precision: str) -> dict[str, Any]:
    """What a trial answers that is this model as it is, in this precision."""
    given, said = {"model": model, "precision": precision}, {}

    def pick(name: str, values: Sequence[Any]) -> Any:
        said[name] = given.get(name, values[0])
        return said[name]

    settings_of(space, pick)
    return said


def baselines(space: Space) -> list[dict[str, Any]]:
    """Answers of the trials that come first: the given model in plain precisions, then the further models."""
    plain = [name for name in PLAIN if name in space.passes] or list(space.passes)[:1]
    first, *others = space.models
    return [answers_of(space, first.name, one) for one in plain] + [
        answers_of(space, other.name, plain[0]) for other in others
    ]


def groups_of(model: nn.Module) -> dict[str, list[str]]:
    """Names of the layers with weights, by what they do: the same place in all equal blocks is one group."""
    found: dict[str, list[str]] = {}
    for name in _layers(model):
        found.setdefault(_group(name), []).append(name)
    return found


def _layers(model: nn.Module) -> Iterable[str]:
    kinds = (*LAYERS, nn.LSTM, nn.GRU)
    return (name for name, layer in model.named_modules() if isinstance(layer, kinds))


def _group(name: str) -> str:
    """`layers.3.attention.query` → `layers.*.attention`; without a number the first part of the name."""
    block = re.match(r"(.*?\.)?\d+(\.\w+)?", name)
    return re.sub(r"\d+", "*", block[0], count=1) if block else name.partition(".")[0]


def in_words(settings: Settings, models: int = 1) -> str:
    """For lines and tables: what differs from a plain model."""
    parts = [settings.model] if models > 1 else []
    parts += [f"{name} {value}" for name, value in settings.subnetwork.items()]
    parts += [f"{settings.pruning_ratio:.0%} pruned"] if settings.pruning_ratio else []
    parts += [f"chunks of {settings.chunk_frames} frames", settings.precision]
    spared = ", ".join(group.rpartition(".")[2] for group in settings.fp32)
    return ", ".join(parts) + (f" but {spared}" if spared else "")
