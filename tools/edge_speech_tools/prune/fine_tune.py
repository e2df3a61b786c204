"""Train what pruning left, by a recipe, from the pruned weights, with the dense model as teacher if asked."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.recipe import read_recipe
from edge_speech.training.train import train
from edge_speech_tools.prune import depth
from edge_speech_tools.prune.ratio import fields_of
from edge_speech_tools.prune.width import settings_of


@dataclass(frozen=True)
class Training:
    """The recipe, and what `--set` changes in it."""

    recipe: Path
    changes: tuple[str, ...] = ()


def run(
    pruned: LoadedModel, dense: Path, training: Training, folder: Path, *, force: bool, quiet: bool
) -> LoadedModel:
    """The trained model. What happens is kept in `folder`: a second run goes on in it, or with `force` begins
    anew. `dense` is the model that was given. Raises InputError."""
    if force:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "pruned.pt"
    if not start.exists():
        save_model(start, pruned)
    elif not _is_same(load_model(start), pruned):
        raise InputError(f"{folder} is of another model, ratio or recordings; --force begins anew")
    given = [f"model.weights={start.resolve()}", *(f"model.{k}={v}" for k, v in _sizes(pruned).items())]
    recipe = read_recipe(training.recipe, [*training.changes, *given])
    if recipe.objective == "distillation":
        given.append(f"distillation.teacher={dense.resolve()}")
        recipe = read_recipe(training.recipe, [*training.changes, *given])
    if not quiet:
        print(f"train    {folder}", file=sys.stderr)
    trained = load_model(train(recipe, folder, quiet))
    return replace(trained, metrics={**trained.metrics, **_kept(pruned)})


def _sizes(pruned: LoadedModel) -> dict[str, int]:
    """What pruning may have changed, and what followed from that before."""
    settings = settings_of(pruned)
    return {name: settings[name] for name in [*fields_of(pruned), *pruned.model.config.derived()]}


def _kept(pruned: LoadedModel) -> dict[str, list[int]]:
    return {depth.KEPT: pruned.metrics[depth.KEPT]} if depth.KEPT in pruned.metrics else {}


def _is_same(one: LoadedModel, other: LoadedModel) -> bool:
    """Whether two models have the same weights."""
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
