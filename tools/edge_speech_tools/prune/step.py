"""Pruning as the first step of `optimize`: later ones see what is left, words count against the given one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_speech.bundle import sha256_of
from edge_speech.encoder import FloatArray
from edge_speech.training.checkpoint import LoadedModel, load_model, save_model
from edge_speech_tools.cache import Entry, key_of
from edge_speech_tools.calibration import CalibrationSet
from edge_speech_tools.contract import check_contract
from edge_speech_tools.job import Job
from edge_speech_tools.keys import recordings_print, tools_print
from edge_speech_tools.prune import changes, fine_tune, ratio
from edge_speech_tools.reference import single_thread

_STEP, _FILE = "prune", "pruned.pt"


def pruned_job(job: Job) -> Job:
    """`job` with the model pruned, and trained if asked for; as it is where no ratio is given. A run that was
    stopped while it trained goes on there. Raises InputError."""
    if job.config.pruning_ratio is None:
        return job
    entry = job.cache.get(_STEP, _key(job))
    kept = " (cached)" if entry else ""
    found = _of(job, entry or _make(job))
    counts = changes.of_model(job.loaded, found.loaded)
    job.progress.say(
        f"prune    {counts['dense_parameters']} → {counts['parameters']} parameters, {counts['ratio']:.1%} "
        f"gone{kept}"
    )
    return found


def cached_job(job: Job) -> Job | None:
    """The same of what an earlier run kept, None where it did not."""
    if job.config.pruning_ratio is None:
        return job
    entry = job.cache.get(_STEP, _key(job))
    return _of(job, entry) if entry else None


def described(job: Job) -> dict[str, Any] | None:
    """The report's `pruning`."""
    if job.config.pruning_ratio is None or job.given is None:
        return None
    recipe, dense = job.config.fine_tune, job.given.loaded
    return {
        "asked_ratio": job.config.pruning_ratio,
        **changes.of_model(dense, job.loaded),
        "fine_tune": recipe.name if recipe else None,
        "weights": changes.of_weights(dense, job.loaded),
    }


def _key(job: Job) -> str:
    """What is trained stays good when our code changes: it is judged anew, and hours would be lost."""
    recipe = job.config.fine_tune
    made = tools_print() if recipe is None else [sha256_of(recipe), list(job.config.recipe_changes)]
    heard = recordings_print(job.calibration)
    return key_of(_STEP, job.keys.checkpoint, job.config.pruning_ratio, _config(job).tile, heard, made)


def _of(job: Job, entry: Entry) -> Job:
    loaded = load_model(entry.folder / _FILE)
    spec = check_contract(loaded.model, len(loaded.tokens), job.spec.num_features)
    keys = replace(job.keys, checkpoint=sha256_of(entry.folder / _FILE))
    return replace(job, loaded=loaded, spec=spec, keys=keys, given=job)


def _make(job: Job) -> Entry:
    key = _key(job)
    asked, config = job.config.pruning_ratio or 0.0, _config(job)
    with single_thread():
        pruned = ratio.prune_to(job.loaded, asked, _features(job), config, progress=job.progress)
    training = job.cache.folder / f"{_STEP}-training.{key[:32]}"
    trained = _trained(job, pruned, training)
    with tempfile.TemporaryDirectory() as work:
        save_model(Path(work) / _FILE, trained)
        entry = job.cache.put(_STEP, key, None, [Path(work) / _FILE])
    shutil.rmtree(training, ignore_errors=True)
    return entry


def _trained(job: Job, pruned: LoadedModel, folder: Path) -> LoadedModel:
    config = job.config
    if config.fine_tune is None:
        return pruned
    training = fine_tune.Training(config.fine_tune, config.recipe_changes)
    return fine_tune.run(pruned, config.model, training, folder, force=False, quiet=config.quiet)


def _config(job: Job) -> ratio.Config:
    """On the widest of the target's tiles, as any of its precisions may be chosen later."""
    return ratio.Config(tile=max(job.target.tiles.values(), default=ratio.Config.tile))


def _features(job: Job) -> Sequence[FloatArray]:
    assert job.calibration is not None
    return CalibrationSet(job.calibration.recordings[: ratio.RECORDINGS], job.line.frontend)
