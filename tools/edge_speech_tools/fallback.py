"""When int8-static costs more words than the budget allows: the fewest layers that go back to fp32.

Layers are ordered by what quantising each alone does to log_probs, for the time it saves; then as many of the
first ones as it takes are put back, and the words are counted again with each number that is tried.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_speech.backends import load_encoder
from edge_speech.bundle import sha256_of
from edge_speech.encoder import Encoder
from edge_speech.errors import CheckFailed
from edge_speech_tools.cache import Entry, key_of
from edge_speech_tools.calibration import CalibrationSet, calibrate
from edge_speech_tools.evaluation import PYTORCH, Measured, measure_quality
from edge_speech_tools.job import Job
from edge_speech_tools.keys import recordings_print, tools_print
from edge_speech_tools.passes import Source
from edge_speech_tools.quantize import int8_static
from edge_speech_tools.sensitivity import LayerCost, by_value, keep_within, layer_costs
from edge_speech_tools.stages import Made

KEY = f"{int8_static.BACKEND}/{int8_static.PRECISION}"
# Recordings on which the order of the layers is found; the words are counted on all of --eval.
RECORDINGS = 8


@dataclass(frozen=True)
class PutBack:
    """What the fallback found: `names` are the layers in fp32, `layers` the report's `sensitivity`."""

    names: tuple[str, ...]
    wer_added_before: float
    wer_added: float
    layers: tuple[dict[str, Any], ...]

    def reason(self, budget: float) -> str:
        """One sentence for the report's decision."""
        which = f"{len(self.names)} of {len(self.layers)} layers stay fp32 ({', '.join(self.names)})"
        return (
            f"{KEY}: {which}, which "
            f"brings its WER from {self.wer_added_before:+.2f} to {self.wer_added:+.2f} points over PyTorch, "
            f"budget {budget:g}."
        )


def fall_back(job: Job, made: Made, measured: Measured, work: Path) -> tuple[Made, PutBack | None]:
    """`made` with a milder int8-static in it where that was over the budget and can be brought within."""
    added, budget = _wer_added(measured), job.config.accuracy_budget
    if added is None or added <= budget or job.calibration is None:
        return made, None
    job.progress.say(f"fallback {KEY}: WER {added:+.2f} points, over the budget of {budget:g}")
    step, key = f"fallback-{KEY}", key_of("fallback", job.keys.quality(made.hashes[KEY]), budget)
    try:
        entry = job.cache.get(step, key) or _searched(job, measured, work, added, (step, key))
    except CheckFailed as error:
        job.progress.say(f"fallback {KEY}: {error}")
        return made, None
    shutil.copyfile(entry.folder / int8_static.FILE_NAME, work / int8_static.FILE_NAME)
    plain = entry.value
    put_back = PutBack(**{**plain, "names": tuple(plain["names"]), "layers": tuple(plain["layers"])})
    job.progress.say(f"fallback {put_back.reason(budget)}")
    return _with_new(job, made, work / int8_static.FILE_NAME), put_back


def sensitivity(job: Job, made: Made) -> tuple[dict[str, Any], ...]:
    """The report's `sensitivity` where nothing had to be put back: every layer quantised alone, on the first
    calibration recordings; empty where there is no int8-static."""
    if KEY not in made.runnable or job.calibration is None:
        return ()
    heard = replace(job.calibration, recordings=job.calibration.recordings[:RECORDINGS])
    key = key_of("sensitivity", job.keys.checkpoint, recordings_print(heard), tools_print())

    def costs() -> list[dict[str, Any]]:
        features = CalibrationSet(heard.recordings, job.line.frontend)
        scales = {**calibrate(job.loaded.model, job.spec, features), **job.loaded.quantization}
        found = layer_costs(job.loaded.model, job.spec, scales, list(features), job.progress)
        return [_layer(cost, ()) for cost in found]

    return tuple(job.cache.value("sensitivity", key, costs))


def _wer_added(measured: Measured) -> float | None:
    if KEY not in measured.quality:
        return None
    return measured.quality[KEY].score.wer - measured.quality[PYTORCH].score.wer


def _searched(job: Job, measured: Measured, work: Path, before: float, name: tuple[str, str]) -> Entry:
    """Find the layers and keep the file. Raises CheckFailed where putting all back does not help."""
    assert job.calibration is not None
    assert job.evaluation is not None
    features = CalibrationSet(job.calibration.recordings, job.line.frontend)
    scales = job.loaded.quantization or calibrate(job.loaded.model, job.spec, features)
    source = Source(job.loaded.model, job.spec, work, features, job.target.recipe, scales)
    costs = layer_costs(job.loaded.model, job.spec, scales, list(features[:RECORDINGS]), job.progress)
    recordings, reference = job.evaluation.recordings, measured.quality[PYTORCH].score.wer

    def wer_added(names: Sequence[str]) -> float:
        path = int8_static.run(source, int8_static.Config(keep=tuple(names))).path
        label = f"{KEY}, {len(names)} layers in fp32"
        encoder = load_encoder(int8_static.BACKEND, path, job.spec)
        return (
            measure_quality(job.line, {label: encoder}, recordings, job.progress)[label].score.wer - reference
        )

    found = keep_within(job.config.accuracy_budget, by_value(costs), wer_added)
    path = int8_static.run(source, int8_static.Config(keep=found.names)).path
    layers = [_layer(cost, found.names) for cost in costs]
    plain = {"names": list(found.names), "wer_added_before": before, "wer_added": found.wer_added}
    return job.cache.put(*name, {**plain, "layers": layers}, [path])


def _layer(cost: LayerCost, put_back: Sequence[str]) -> dict[str, Any]:
    precision = "fp32" if cost.name in put_back else "int8"
    return {
        "layer": cost.name,
        "parameters": cost.parameters,
        "precision": precision,
        "divergence": cost.divergence,
    }


def _with_new(job: Job, made: Made, path: Path) -> Made:
    """`made`, with the file at `path` as its int8-static."""
    results = tuple(replace(r, path=path) if r.key == KEY else r for r in made.results)

    def engine(key: str) -> Encoder:
        return load_encoder(int8_static.BACKEND, path, job.spec) if key == KEY else made.engine(key)

    return Made(results, {**made.hashes, KEY: sha256_of(path)}, engine)
