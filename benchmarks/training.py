"""Speed of training, for every size of an architecture, as JSON.

    python benchmarks/training.py RECIPE [--set data.root=DIR ...] [--sizes small,medium,large] [--threads 2]
                                  [--steps N] [-o FILE]

Each size is trained for N steps on the recipe's own data, twice: once on batches made beforehand, which
times the step alone, once as `edge-speech train` does it, with `run.workers` processes that read, augment and
compute features meanwhile. `waiting` is the share of the second run that was spent waiting for batches: data
loading is the bottleneck where it is not near zero. `data_ms` is what one process needs to make a batch.

`rtf` is the time a step takes over the audio in its batch, padding not counted: 0.02 means an hour of speech
takes 72 seconds. `profile` is the share of each part of a step, and of the operators that take most of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from edge_speech.training.data import Batch
from edge_speech.training.recipe import Recipe, read_recipe
from edge_speech.training.train import Trainer
from edge_speech_tools.provenance import host

WARM_UP = 3
OPERATORS = 8


def measure(recipe: Recipe, steps: int, folder: Path) -> dict[str, Any]:
    """One size."""
    trainer = Trainer(recipe, folder)
    batches, data_s = prepared(trainer, WARM_UP + steps)
    audio_s = [seconds_in(parts, trainer) for parts in batches]
    step_s = [timed_step(trainer, parts) for parts in batches]
    rtf = [took / audio for took, audio in zip(step_s, audio_s, strict=True)]
    return {
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "batch_audio_s": round(statistics.mean(audio_s), 1),
        "step_ms": round(1000 * statistics.median(step_s[WARM_UP:]), 1),
        "rtf": round(statistics.median(rtf[WARM_UP:]), 5),
        "data_ms": round(1000 * statistics.median(data_s[WARM_UP:]), 1),
        **loaded(trainer, steps),
        "profile": profiled(trainer, batches[-3:]),
    }


def seconds_in(parts: list[Batch], trainer: Trainer) -> float:
    """Audio in a step, padding not counted."""
    frames = sum(int(part.feature_lengths.sum()) for part in parts)
    return frames * trainer.frontend.frame_shift_ms / 1000


def prepared(trainer: Trainer, count: int) -> tuple[list[list[Batch]], list[float]]:
    """Batches made in this process, and the seconds each took; the recordings are read beforehand."""
    for step in range(count):
        trainer.training_set.parts(step)
    batches, times = [], []
    for step in range(count):
        start = time.perf_counter()
        batches.append(trainer.training_set.parts(step))
        times.append(time.perf_counter() - start)
    return batches, times


def timed_step(trainer: Trainer, parts: list[Batch]) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    trainer._update(parts)
    return time.perf_counter() - start


def loaded(trainer: Trainer, steps: int) -> dict[str, float]:
    """Steps per second with batches from worker processes, and the share of it that was waiting for them."""
    batches: Iterator[list[Batch]] = iter(trainer._batches())
    for parts in itertools.islice(batches, WARM_UP):
        trainer._update(parts)
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        parts = next(batches)
        waited += time.perf_counter() - asked
        trainer._update(parts)
    took = time.perf_counter() - start
    return {"steps_per_s": round(steps / took, 3), "waiting": round(waited / took, 4)}


def profiled(trainer: Trainer, batches: list[list[Batch]]) -> dict[str, dict[str, float]]:
    """Shares of the time of a step."""
    phases = {"loss": 0.0, "backward": 0.0, "optimizer": 0.0}
    for part in itertools.chain(*batches):
        clock = [time.perf_counter()]
        loss = trainer._loss(part)
        clock.append(time.perf_counter())
        loss.backward()  # type: ignore[no-untyped-call]
        clock.append(time.perf_counter())
        trainer.optimizer.step()
        trainer._update_average()
        clock.append(time.perf_counter())
        for name, (begin, end) in zip(phases, itertools.pairwise(clock), strict=True):
            phases[name] += end - begin
    with profile(activities=[ProfilerActivity.CPU]) as found:
        trainer._update(batches[0])
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    most = sorted(events, key=lambda event: -event.self_cpu_time_total)[:OPERATORS]
    return {
        "phases": {name: round(s / sum(phases.values()), 3) for name, s in phases.items()},
        "operators": {event.key: round(event.self_cpu_time_total / total, 3) for event in most},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--sizes", default="small,medium,large")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    recipe = read_recipe(args.recipe, args.set)
    results = []
    for size in args.sizes.split(","):
        sized = replace(
            recipe,
            model={**recipe.model, "size": size},
            optimizer=replace(recipe.optimizer, steps=10**6),
            run=replace(recipe.run, threads=args.threads),
        )
        with tempfile.TemporaryDirectory() as folder:
            found = measure(sized, args.steps, Path(folder))
        results.append({"architecture": recipe.architecture, "size": size, "threads": args.threads, **found})
        print(json.dumps(results[-1]), file=sys.stderr)
    text = json.dumps({"recipe": args.recipe.name, "host": host(), "results": results}, indent=1) + "\n"
    print(text, end="")
    if args.output:
        args.output.write_text(text)


if __name__ == "__main__":
    main()
