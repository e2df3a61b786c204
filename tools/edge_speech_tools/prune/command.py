"""`edge-speech prune`: model.pt → a smaller model.pt, of the same architecture with smaller settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_speech.encoder import FloatArray
from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech.training.supernet import read_changes, subnetwork
from edge_speech_tools import recordings
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.contract import check_contract, require_streaming
from edge_speech_tools.progress import Progress
from edge_speech_tools.prune import changes, fine_tune, masks, ratio


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """`edge-speech prune`: {"model", "parameters", "dense_parameters", "ratio", "changes"}.

    Raises InputError.
    """
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
    return {"model": str(output), **changes.of_model(dense, pruned)}


def _check_arguments(args: argparse.Namespace, output: Path) -> None:
    """Before any work. Raises InputError."""
    if output.exists() and not args.force:
        raise InputError(f"{output} exists; give another -o, or --force")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent} is no folder; make it, or give another -o")
    if args.ratio is None and not args.sparsity and not args.subnetwork:
        raise InputError("nothing to do; give --ratio, such as 0.4, or --sparsity, such as 2:4")
    if args.ratio is not None and args.subnetwork:
        raise InputError("--ratio prunes what --subnetwork gives in a second command; give one of them")
    if (args.set or args.iterations != 1) and not args.fine_tune:
        raise InputError("--set and --iterations are about training; give --fine-tune RECIPE.toml")
    if args.fine_tune and args.ratio is None:
        raise InputError("--fine-tune trains what --ratio leaves; give --ratio, such as 0.4")
    if args.iterations < 1:
        raise InputError(f"--iterations is {args.iterations}; at least 1")


def _pruned(args: argparse.Namespace, dense: LoadedModel, progress: Progress) -> LoadedModel:
    """Smaller by the ratio, in as many steps as asked for, trained after each."""
    if args.subnetwork:
        return subnetwork(dense, read_changes(args.subnetwork))
    if args.ratio is None:
        return dense
    fields = tuple(args.fields.split(",")) if args.fields else ()
    config = ratio.Config(fields, args.importance, args.tile)
    ratio.aim_of(dense, args.ratio, config)
    features, found, steps = _features(args, dense), dense, args.iterations
    for step in range(1, steps + 1):
        share, of = args.ratio * step / steps, None if step == 1 else dense
        found = ratio.prune_to(found, share, features, config, progress=progress, dense=of)
        if args.fine_tune:
            training = fine_tune.Training(Path(args.fine_tune), tuple(args.set or ()))
            folder = Path(args.output).with_suffix(".prune") / str(step)
            found = fine_tune.run(
                found, Path(args.model), training, folder, force=args.force, quiet=args.quiet
            )
    return found


def _features(args: argparse.Namespace, dense: LoadedModel) -> Sequence[FloatArray]:
    if not args.calibration:
        return ()
    found = recordings.from_manifest(Path(args.calibration), need_text=False).recordings[: ratio.RECORDINGS]
    return CalibrationSet(found, frontend_from_dict(dense.frontend))
