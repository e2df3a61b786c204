"""`edge-speech prune`: model.pt → a smaller model.pt, of the same architecture with smaller settings."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.recipe import read_recipe
from edge_speech.training.train import train
from edge_speech_tools import recordings
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.contract import check_contract, require_streaming
from edge_speech_tools.progress import Progress
from edge_speech_tools.prune import depth, masks, width

FIELDS = (depth.FIELD, width.FIELD)
# Recordings on which importance is measured.
RECORDINGS = 20
# Of what is taken out, whole layers may be so much. english_small less 40 %: with three layers (0.9 of it)
# the divergence is twice that with two (0.6) and narrower feed-forward layers.
OF_LAYERS = 2 / 3


@dataclass(frozen=True)
class Aim:
    """What is left: `layers`, and feed-forward channels of each block."""

    layers: int
    width: int


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """`edge-speech prune`: {"model", "parameters", "dense_parameters", "changes"}. Raises InputError."""
    output = Path(args.output)
    _check_arguments(args, output)
    path, progress = Path(args.model), Progress(args.quiet)
    dense = require_streaming(path, load_model(path))
    frontend = frontend_from_dict(dense.frontend)
    check_contract(dense.model, len(dense.tokens), frontend.num_features)
    pruned = _pruned(args, dense, progress)
    if args.sparsity:
        pruned = masks.run(pruned, masks.Config(args.sparsity))
    try:
        save_model(output, pruned)
    except OSError as error:
        raise InputError(
            f"cannot write {output} ({error.strerror or error}); nothing of it was left"
        ) from None
    changed = {k: [v, pruned.config[k]] for k, v in dense.config.items() if pruned.config[k] != v}
    counts = {"parameters": parameters_of(pruned), "dense_parameters": parameters_of(dense)}
    return {"model": str(output), **counts, "changes": changed}


def _check_arguments(args: argparse.Namespace, output: Path) -> None:
    """Before any work. Raises InputError."""
    if output.exists() and not args.force:
        raise InputError(f"{output} exists; give another -o, or --force")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent} is no folder; make it, or give another -o")
    if args.ratio is None and not args.sparsity:
        raise InputError("nothing to do; give --ratio, such as 0.4, or --sparsity, such as 2:4")
    if (args.set or args.iterations != 1) and not args.fine_tune:
        raise InputError("--set and --iterations are about training; give --fine-tune RECIPE.toml")
    if args.fine_tune and args.ratio is None:
        raise InputError("--fine-tune trains what --ratio leaves; give --ratio, such as 0.4")
    if args.iterations < 1:
        raise InputError(f"--iterations is {args.iterations}; at least 1")


def _pruned(args: argparse.Namespace, dense: LoadedModel, progress: Progress) -> LoadedModel:
    """Smaller by the ratio, in as many steps as asked for, trained after each."""
    if args.ratio is None:
        return dense
    fields = tuple((args.fields or ",".join(f for f in FIELDS if f in dense.config)).split(","))
    features = _features(args, dense)
    found, steps = dense, args.iterations
    for step in range(1, steps + 1):
        aim = aim_of(dense, args.ratio * step / steps, fields, args.tile)
        progress.say(f"prune    {aim.layers} layers, feed-forward {aim.width}")
        found = shrink(found, aim, features, args.importance, progress)
        if args.fine_tune:
            found = _fine_tuned(args, found, step)
    return found


def shrink(
    loaded: LoadedModel, aim: Aim, features: Sequence[FloatArray], importance: str, progress: Progress
) -> LoadedModel:
    """Take out layers, then channels, on features (T, F) of recordings. Raises InputError."""
    if aim.layers < loaded.config.get(depth.FIELD, 0):
        loaded = depth.run(loaded, features, depth.Config(aim.layers), progress)
    if aim.width < loaded.config.get(width.FIELD, 0):
        loaded = width.run(loaded, features, width.Config(aim.width, importance))
    return loaded


def aim_of(dense: LoadedModel, ratio: float, fields: Sequence[str], tile: int) -> Aim:
    """Settings with which `ratio` of the parameters are gone: whole layers, which save the engine's nodes
    too, for at most `OF_LAYERS` of them, then feed-forward channels, a multiple of `tile`. Raises InputError.
    """
    if unknown := [f for f in fields if f not in FIELDS or f not in dense.config]:
        can = ", ".join(f for f in FIELDS if f in dense.config) or "nothing"
        raise InputError(f"{unknown[0]!r} of a {dense.architecture} cannot be pruned; {can} can")
    if not 0 < ratio < 1:
        raise InputError(f"the ratio is {ratio:g}; allowed is a fraction of the parameters between 0 and 1")
    if not 1 <= tile <= 1024:
        raise InputError(f"the tile is {tile}; allowed are 1 to 1024, usual are 8, 16 and 32")
    wanted = (1 - ratio) * parameters_of(dense)
    layers, channels = dense.config[depth.FIELD], dense.config.get(width.FIELD, 0)
    if depth.FIELD in fields:
        depth.stack_of(dense)
        least = (1 - ratio * OF_LAYERS) * parameters_of(dense)
        narrowest = tile if width.FIELD in fields else channels
        while layers > 1 and _count(dense, layers - 1, channels) >= wanted:
            if _count(dense, layers, narrowest) <= wanted and _count(dense, layers - 1, channels) < least:
                break
            layers -= 1
    if width.FIELD in fields:
        while channels > tile and _count(dense, layers, channels) > wanted:
            channels = (channels - 1) // tile * tile
    left = _count(dense, layers, channels)
    exactly = width.FIELD in fields  # layers alone are taken out while they fit
    if (exactly or layers in (1, dense.config[depth.FIELD])) and left > wanted:
        reached = 1 - left / parameters_of(dense)
        raise InputError(f"{', '.join(fields)} can take out {reached:.0%} of the parameters, not {ratio:.0%}")
    return Aim(layers, channels)


def parameters_of(loaded: LoadedModel) -> int:
    """How many numbers the model has learnt."""
    return sum(p.numel() for p in loaded.model.parameters())


def _count(dense: LoadedModel, layers: int, channels: int) -> int:
    changes = {depth.FIELD: layers, **({width.FIELD: channels} if channels else {})}
    with torch.device("meta"):
        model = models.build(dense.architecture, {**dense.config, **changes})
    return sum(p.numel() for p in model.parameters())


def _features(args: argparse.Namespace, dense: LoadedModel) -> Sequence[FloatArray]:
    if not args.calibration:
        return ()
    found = recordings.from_manifest(Path(args.calibration), need_text=False).recordings[:RECORDINGS]
    return CalibrationSet(found, frontend_from_dict(dense.frontend))


def _fine_tuned(args: argparse.Namespace, pruned: LoadedModel, step: int) -> LoadedModel:
    """Train from the pruned weights, in a folder beside the output; a second run goes on in it."""
    folder = Path(args.output).with_suffix(".prune") / str(step)
    folder.mkdir(parents=True, exist_ok=True)
    start, sizes = folder / "pruned.pt", {f: pruned.config[f] for f in FIELDS if f in pruned.config}
    if args.force:
        shutil.rmtree(folder)
        folder.mkdir()
    if not start.exists():
        save_model(start, pruned)
    elif not _is_same(load_model(start), pruned):
        raise InputError(f"{folder} is of another model, ratio or recordings; --force begins anew")
    given = [f"model.weights={start.resolve()}", *(f"model.{k}={v}" for k, v in sizes.items())]
    recipe = read_recipe(Path(args.fine_tune), [*(args.set or []), *given])
    if recipe.objective == "distillation":
        given.append(f"distillation.teacher={Path(args.model).resolve()}")
        recipe = read_recipe(Path(args.fine_tune), [*(args.set or []), *given])
    if not args.quiet:
        print(f"train    {folder}", file=sys.stderr)
    return load_model(train(recipe, folder, args.quiet))


def _is_same(one: LoadedModel, other: LoadedModel) -> bool:
    """Whether two models have the same weights."""
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    return set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
