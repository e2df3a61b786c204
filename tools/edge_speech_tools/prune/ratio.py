"""A model with a share of its parameters gone: whole layers first, then channels where they cost least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools.progress import Progress
from edge_speech_tools.prune import depth, importance, width
from edge_speech_tools.sensitivity import SILENT

# What shrinks unless told, in architectures that have it; in others all they have.
DEFAULT = ("num_layers", "feed_forward_dim")
# Counted one by one, whatever the tile: each is `head_dim` channels.
WHOLE = ("num_heads",)
# Recordings on which importance and divergence are measured.
RECORDINGS = 20
# Of what is taken out, whole layers may be so much. english_small less 40 %: with three layers (0.9 of it)
# the divergence is twice that with two (0.6) and narrower feed-forward layers.
OF_LAYERS = 2 / 3
# Where several settings may shrink, in so many steps; each goes to the setting where it costs least.
STEPS = 10


@dataclass(frozen=True)
class Config:
    """`fields` are the settings that may shrink, none stands for the default ones; `importance` is one of
    `importance.MEASURES`; what is left is a multiple of `tile`."""

    fields: tuple[str, ...] = ()
    importance: str = "taylor"
    tile: int = 8


@dataclass(frozen=True)
class Aim:
    """What is left: `layers`, None where they stay, and at most so many `parameters` by narrower `fields`."""

    layers: int | None
    parameters: int
    fields: tuple[str, ...]


def prune_to(
    loaded: LoadedModel,
    ratio: float,
    features: Sequence[FloatArray],
    config: Config = Config(),
    *,
    progress: Progress = SILENT,
    dense: LoadedModel | None = None,
) -> LoadedModel:
    """`loaded` less `ratio` of its parameters, or of those of `dense`, which it was made from.

    features (T, F) of recordings say what matters; the first RECORDINGS are heard. Raises InputError.
    """
    if dense is None:
        loaded = replace(loaded, metrics={k: v for k, v in loaded.metrics.items() if k != depth.KEPT})
    aim, heard = aim_of(dense or loaded, ratio, config), list(features[:RECORDINGS])
    found = loaded
    if aim.layers is not None and aim.layers < depth.layers_of(loaded):
        found = depth.run(loaded, heard, depth.Config(aim.layers), progress)
        progress.say(f"prune    {depth.stack_of(loaded).setting} {depth.layers_of(loaded)} → {aim.layers}")
    if not aim.fields:
        return found
    if len(aim.fields) > 1 and not heard:
        raise InputError("which channels matter is measured on recordings; give --calibration MANIFEST")
    rows = depth.rows_of(loaded, heard) if len(aim.fields) > 1 else []
    share = (parameters_of(found) - aim.parameters) / (STEPS if rows else 1)
    while (count := parameters_of(found)) > aim.parameters:
        sizes = _sizes(found, aim.fields, max(aim.parameters, count - share), config.tile)
        field, narrower = _cheapest(found, _tried(found, sizes, heard, config.importance), heard, rows)
        progress.say(f"prune    {field} {fields_of(found)[field]} → {sizes[field]}")
        found = narrower
    return found


def fields_of(loaded: LoadedModel) -> dict[str, int]:
    """The settings that can shrink, and what they are."""
    settings, stack = width.settings_of(loaded), loaded.model.layer_stack()  # type: ignore[operator, union-attr]
    deep = [stack.setting] if stack is not None and stack.removable else []
    return {name: settings[name] for name in [*deep, *loaded.model.channels()]}  # type: ignore[operator, union-attr]


def parameters_of(loaded: LoadedModel) -> int:
    """How many numbers the model has learnt."""
    return sum(p.numel() for p in loaded.model.parameters())


def aim_of(dense: LoadedModel, ratio: float, config: Config = Config()) -> Aim:
    """What `ratio` of the parameters of `dense` gone means. Raises InputError.

    Whole layers, which save the engine's nodes too, are at most `OF_LAYERS` of it where channels can be the
    rest.
    """
    known = fields_of(dense)
    fields = _checked(dense, ratio, config, known)
    deep = known.keys() - dense.model.channels().keys()  # type: ignore[operator, union-attr]
    narrow = tuple(f for f in fields if f not in deep)
    least, total = {f: _least(f, known[f], config.tile) for f in narrow}, parameters_of(dense)
    wanted = int((1 - ratio) * total)
    stack = next((f for f in fields if f in deep), None)
    layers = _layers(dense, stack, known, least, ratio) if stack else None
    left = _count(dense, {**least, **({stack: layers} if stack else {})})
    # Layers alone go as long as they fit, which may be less than asked for, but not none and not all.
    ended = stack is not None and layers in (1, known[stack])
    if (narrow or ended) and left > wanted:
        raise InputError(
            f"{', '.join(fields)} can take out {1 - left / total:.0%} of the parameters, not {ratio:.0%}"
        )
    return Aim(layers, wanted, narrow)


def _checked(dense: LoadedModel, ratio: float, config: Config, known: Mapping[str, int]) -> tuple[str, ...]:
    """The fields that may shrink. Raises InputError."""
    if not 0 < ratio < 1:
        raise InputError(f"the ratio is {ratio:g}; allowed is a fraction of the parameters between 0 and 1")
    if not 1 <= config.tile <= 1024:
        raise InputError(f"the tile is {config.tile}; allowed are 1 to 1024, usual are 8, 16 and 32")
    default = DEFAULT if DEFAULT[1] in known else tuple(known)
    fields = config.fields or tuple(f for f in default if f in known)
    if unknown := [f for f in fields if f not in known]:
        can = ", ".join(known) or "nothing"
        raise InputError(f"{unknown[0]!r} of a {dense.architecture} cannot be pruned; {can} can")
    return tuple(dict.fromkeys(fields))


def _layers(
    dense: LoadedModel, stack: str, known: Mapping[str, int], narrowest: Mapping[str, int], ratio: float
) -> int:
    """How many layers stay: more than two thirds of what goes are layers only where channels cannot be."""
    layers, total = known[stack], parameters_of(dense)
    wanted, least = (1 - ratio) * total, (1 - ratio * OF_LAYERS) * total
    while layers > 1 and (left := _count(dense, {stack: layers - 1})) >= wanted:
        if left < least and narrowest and _count(dense, {stack: layers, **narrowest}) <= wanted:
            break
        layers -= 1
    return layers


def _sizes(loaded: LoadedModel, fields: Sequence[str], wanted: float, tile: int) -> dict[str, int]:
    """For each field that can shrink, the largest size on the tile with `wanted` parameters, or its least."""
    known, found = fields_of(loaded), {}
    for field in fields:
        size, least = known[field], _least(field, known[field], tile)
        step = 1 if field in WHOLE else tile
        while size > least and _count(loaded, {field: size}) > wanted:
            size = max(least, (size - 1) // step * step)
        if size < known[field]:
            found[field] = size
    return found


def _tried(
    loaded: LoadedModel, sizes: Mapping[str, int], heard: Sequence[FloatArray], measure: str
) -> dict[str, LoadedModel]:
    """The model with each field alone at its size; importance is measured once for all."""
    groups = [(field, counted) for field in sizes for counted in width.counted_groups(loaded, field)]
    scores = importance.channels(loaded.model, [counted for _, counted in groups], heard, measure)
    by_field: dict[str, list[Tensor]] = {field: [] for field in sizes}
    for (field, _), score in zip(groups, scores, strict=True):
        by_field[field].append(score)
    return {field: width.narrowed(loaded, field, size, by_field[field]) for field, size in sizes.items()}


def _cheapest(
    loaded: LoadedModel, tried: Mapping[str, LoadedModel], heard: Sequence[FloatArray], rows: list[Tensor]
) -> tuple[str, LoadedModel]:
    """The field that adds least divergence for each parameter it takes out, and what is left then."""
    if len(tried) == 1:
        return next(iter(tried.items()))
    now, count = depth.mean_kl(rows, loaded, heard), parameters_of(loaded)

    def cost(field: str) -> float:
        return (depth.mean_kl(rows, tried[field], heard) - now) / (count - parameters_of(tried[field]))

    field = min(tried, key=cost)
    return field, tried[field]


def _least(field: str, size: int, tile: int) -> int:
    """The narrowest that a field becomes."""
    return 1 if field in WHOLE else min(size, tile)


def _count(loaded: LoadedModel, changes: dict[str, Any]) -> int:
    with torch.device("meta"):
        model = models.build(loaded.architecture, {**width.settings_of(loaded), **changes})
    return sum(p.numel() for p in model.parameters())
