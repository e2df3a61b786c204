"""The training loop: `edge-speech train RECIPE.toml -o DIR`.

DIR gets `recipe.json` and `environment.json` (what ran, and on what), `log.jsonl` (one line per report),
`tensorboard/` (the same, where tensorboard is installed), `checkpoint.pt` (to resume from) and, at the end,
`model.pt` and `curve.png`. Under torchrun several processes share every step, and the first one writes. The
weights kept are an exponential moving average of those the optimiser moves.
A run that is stopped at any moment, killed too, goes on to the same weights and the same log; on a GPU up to
the order in which its kernels add.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from edge_speech.errors import InputError
from edge_speech.group import ALONE, Group, group_of_environment, joined
from edge_speech.training import checkpoint, distributed, models, objectives, plot
from edge_speech.training.checkpoint import LoadedModel, read_plain, save_atomically, save_model
from edge_speech.training.data import Batch, Parts, TrainingSet, evaluation_set, texts
from edge_speech.training.early_stopping import EarlyStopping
from edge_speech.training.fake_quantization import (
    fake_quantize,
    freeze_scales,
    freeze_statistics,
    min_max_scales,
    take_out,
)
from edge_speech.training.fine_tune import OUTPUT, take_weights
from edge_speech.training.frontends import frontend_for, frontend_to_dict
from edge_speech.training.interrupts import held_interrupts
from edge_speech.training.models import Model
from edge_speech.training.optimization import Schedule, adamw, autocast, grad_scaler, precision_of
from edge_speech.training.recipe import Recipe, read_recipe
from edge_speech.training.run_log import RunLog, environment, write_text
from edge_speech.training.scales import LayerScales, scales_from_plain, scales_to_plain
from edge_speech.training.supernet import Sandwich
from edge_speech.training.tokens import Tokens
from edge_speech.training.trackers import Tracker, tracked
from edge_speech.training.weight_sharing import check_choices, sort_channels

CHECKPOINT_FORMAT = "edge-speech-checkpoint"
CHECKPOINT_VERSION = 3
# On which channels are put in the order in which they matter.
SORTING_BATCHES = 8


# Parts of a Trainer that a checkpoint keeps by their state_dict().
_STATEFUL = ("optimizer", "schedule", "scaler", "stopping")


class Trainer:
    """A run in one folder: the model, its optimiser and how far they are.

    The processes of `group` share the rows of every step and of the dev sources; the first one writes.
    """

    def __init__(self, recipe: Recipe, folder: Path, group: Group = ALONE) -> None:
        _check_watched(recipe)
        torch.set_num_threads(recipe.run.threads)
        torch.manual_seed(recipe.run.seed)
        self.recipe, self.folder, self.group = recipe, folder, group
        self.device = distributed.device_of(recipe.run.device, group)
        self.frontend = frontend_for(recipe.architecture, recipe.frontend)
        self.precision = precision_of(recipe.run.precision, self.device)
        self.tokens = _tokens(recipe)
        self.training_set = TrainingSet(recipe, self.tokens, self.frontend, group)
        self.evaluation = evaluation_set(recipe, self.tokens, self.frontend, group)
        shape = {"num_features": self.frontend.num_features, "vocab_size": len(self.tokens.symbols)}
        self.model = models.start(recipe.architecture, {**recipe.model, **shape}, Path(recipe.data.root))
        self.objective = objectives.build(recipe, self.tokens, self.model)
        if recipe.supernet is not None:
            check_choices(recipe.architecture, models.config_of(self.model), recipe.supernet.choices)
            self.objective = Sandwich(self.objective, self.model, recipe.architecture, recipe.supernet)
        self.trained = nn.ModuleList([self.model, self.objective])
        self.step, self.started = 0, time.monotonic()
        self.losses: list[float] = []  # since the last report
        self.metrics: dict[str, Any] = {}
        self.scales: dict[str, LayerScales] = {}  # those that quantised layers start with
        self._start_or_resume()

    def _start_or_resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        saved = read_plain(path, CHECKPOINT_FORMAT, CHECKPOINT_VERSION) if path.exists() else None
        if len(set(distributed.gathered(self.group, saved and saved["step"]))) > 1:
            raise InputError(
                f"the processes find different checkpoints; {self.folder} must be one folder for all"
            )
        if saved is None:
            self._start()
        elif saved["recipe"] != _comparable(self.recipe) or saved["tokens"] != list(self.tokens.symbols):
            raise InputError(f"{path} comes from another recipe; use a new -o folder or remove it")
        else:
            self.scales = scales_from_plain(saved.get("quantization", {}))
        if self.recipe.quantization is not None:
            fake_quantize(self.model, self.scales)
            if not self.recipe.quantization.learn_scales:
                freeze_scales(self.model)
        self.trained.to(self.device)
        self.loss_of = distributed.shared(self.group, self.trained, self._loss)
        self.optimizer = adamw(self.trained, self.recipe.optimizer)
        self.schedule = Schedule(self.optimizer, self.recipe.optimizer)
        self.scaler = grad_scaler(self.device, self.precision)
        self.stopping = EarlyStopping(self.recipe.optimizer.early_stopping)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if saved is not None:
            self._restore(saved)

    def _start(self) -> None:
        if self.group.speaks:  # the others are given its model
            self._first_weights()
        if self.group.size > 1:
            self.scales = distributed.gathered(self.group, self.scales)[0]
            distributed.new_random_state(self.group, self.recipe.run.seed, 0)

    def _first_weights(self) -> None:
        recipe, weights = self.recipe, self.recipe.model.get("weights")
        if weights is None:
            self.model.normalise(*self.training_set.statistics())
        elif recipe.architecture not in models.OFFLINE:
            path = Path(recipe.data.root) / weights
            given = take_weights(self.model, path, recipe.architecture, self.frontend, self.tokens)
            self.scales = self._first_scales(given) if recipe.quantized else {}
            if recipe.supernet is not None and not given.supernet:
                batches = (self.training_set[step].features for step in range(SORTING_BATCHES))
                sort_channels(recipe.architecture, self.model, recipe.supernet.choices, batches)
        elif recipe.quantized:
            raise InputError(f"recipe: [quantization] is for models that stream, not {recipe.architecture}")

    def _first_scales(self, given: LoadedModel) -> dict[str, LayerScales]:
        """Of the trained model, or measured on the first batches."""
        how = self.recipe.quantization
        assert how is not None
        if given.quantization:
            kept = tuple(given.tokens) == self.tokens.symbols  # otherwise the output layer is made anew
            return {n: s for n, s in given.quantization.items() if kept or not f"{n}.".startswith(OUTPUT)}
        batches = (self.training_set[step].features for step in range(how.calibration_batches))
        return min_max_scales(self.model.eval(), batches, how.weight_bits)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.objective.load_state_dict(saved["objective"])
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(saved[name])
        self.average = {k: v.to(self.device) for k, v in saved["average"].items()}
        self.step, self.losses, self.metrics = saved["step"], saved["losses"], saved["metrics"]
        self.started = time.monotonic() - saved["elapsed_s"]
        if len(saved["random"]) == self.group.size:
            distributed.set_random_state(saved["random"][self.group.rank], self.device)
        else:  # a run of another number of processes
            distributed.new_random_state(self.group, self.recipe.run.seed, self.step)

    def save(self) -> None:
        """Write `checkpoint.pt`."""
        random = distributed.gathered(self.group, distributed.random_state(self.device))
        if not self.group.speaks:
            return
        state = {
            "format": CHECKPOINT_FORMAT,
            "version": CHECKPOINT_VERSION,
            "recipe": _comparable(self.recipe),
            "tokens": list(self.tokens.symbols),
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "quantization": scales_to_plain(self.scales),
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            "average": self.average,
            "step": self.step,
            "losses": self.losses,
            "metrics": self.metrics,
            "elapsed_s": time.monotonic() - self.started,
            "random": random,
        }
        save_atomically(state, self.folder / "checkpoint.pt")

    def run(self, quiet: bool, trackers: Sequence[Tracker] = ()) -> None:
        """Train to the last step. On Ctrl-C end and save the step at hand, then raise KeyboardInterrupt."""
        quiet = quiet or not self.group.speaks
        log = RunLog(self.folder, self.step, trackers) if self.group.speaks else None
        progress = tqdm(
            total=self.recipe.optimizer.steps,
            initial=self.step,
            unit="step",
            disable=quiet,
            dynamic_ncols=True,
        )
        try:
            with progress, held_interrupts() as interrupted:
                self._run(log, progress, interrupted)
        except KeyboardInterrupt:
            if not quiet:
                print(f"at step {self.step}; the same command goes on from {self.folder}", file=sys.stderr)
            raise

    def _run(self, log: RunLog | None, progress: Any, interrupted: Callable[[], bool]) -> None:
        for parts in self._batches():
            loss, norm = self._update(parts)
            self.losses.append(loss)
            progress.update()
            if self._due(self.recipe.run.evaluate_every):
                self._evaluate()
            if self._due(self.recipe.run.log_every):
                mean = self._log(log, norm)
                progress.set_postfix(loss=f"{mean:.3f}", **self.metrics)
            ending = distributed.any_of(self.group, interrupted())
            if self._due(self.recipe.run.checkpoint_every) or ending:
                self.save()
            if ending:
                raise KeyboardInterrupt
            if self.stopping.exhausted:
                break

    def _due(self, every: int) -> bool:
        """Whether something is done after this step that is done `every` so many steps and at the end."""
        last = self.step == self.recipe.optimizer.steps or self.stopping.exhausted
        return last or self.step % every == 0

    def _batches(self) -> DataLoader[list[Batch]]:
        workers = self.recipe.run.workers
        end = self.step if self.stopping.exhausted else self.recipe.optimizer.steps
        return DataLoader(
            Parts(self.training_set),
            sampler=range(self.step, end),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own, so that starting a loader draws nothing from dropout's
            worker_init_fn=_ignore_interrupts if workers else None,
        )

    def _update(self, parts: list[Batch]) -> tuple[float, float]:
        """One step on a batch; its loss and the norm of its gradient before clipping."""
        self.trained.train()
        how = self.recipe.quantization
        if self.scales and how and self.step >= how.freeze_statistics_from * self.recipe.optimizer.steps:
            freeze_statistics(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for part in parts:
            with distributed.exchange(self.loss_of, now=part is parts[-1]):
                share = self.loss_of(part) * part.weight
                # the processes' gradients are averaged, and have to add up
                self.scaler.scale(share * self.group.size).backward()  # type: ignore[no-untyped-call]
            loss += share.item()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.optimizer.gradient_clip)
        if torch.isfinite(norm):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.stepped()
        self.step += 1
        self._update_average()
        return distributed.total(self.group, loss), norm.item()

    def _loss(self, batch: Batch) -> Tensor:
        with autocast(self.device, self.precision):
            loss: Tensor = self.objective(self.model, batch.to(self.device))
        return loss

    def _update_average(self) -> None:
        decay = min(self.recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)

    def _evaluate(self) -> None:
        """Error rate of the averaged weights on the recipe's dev sources, in float32."""
        if not self.recipe.data.dev:
            return
        distributed.broadcast(self.group, self.average.values())
        kept = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        rate = self._error_rate(self.model)
        self.metrics[f"dev_{self.objective.error}"] = rate
        for name, model in self.objective.watched(self.model).items():
            self.metrics[f"dev_{self.objective.error}_{name}"] = self._error_rate(model)
        self.model.load_state_dict(kept)
        self.schedule.evaluated(rate)
        self.stopping.evaluated(rate, self.step, self.average)

    @torch.no_grad()
    def _error_rate(self, model: Model) -> float:
        """Of a model in eval mode on the dev sources."""
        found = [
            (text, self.objective.decode(model, features.to(self.device)))
            for features, text in self.evaluation
        ]
        said, heard = zip(*joined(distributed.gathered(self.group, found)), strict=True)
        return self.objective.error_rate(list(said), list(heard))

    def _log(self, log: RunLog | None, norm: float) -> float:
        """Report the steps since the last report; their mean loss."""
        loss = sum(self.losses) / len(self.losses)
        self.losses = []
        line: dict[str, Any] = {"step": self.step, "loss": round(loss, 5), "gradient_norm": round(norm, 4)}
        line["learning_rate"] = self.schedule.learning_rate
        line["elapsed_s"] = round(time.monotonic() - self.started, 1)
        if self._due(self.recipe.run.evaluate_every):
            line.update(self.metrics)
        if log is not None:
            log.write(line)
        return loss

    def finish(self) -> Path:
        """Write `model.pt` with the averaged weights: the last, or with early stopping the best."""
        metrics = {**self.metrics, "steps": self.step, "recipe": _comparable(self.recipe)}
        if self.stopping.weights is not None:
            metrics = {k: v for k, v in metrics.items() if not k.startswith("dev_")}
            metrics[f"dev_{self.objective.error}"] = self.stopping.error_rate
            metrics["best_step"] = self.stopping.step
        self.model.load_state_dict(self.stopping.weights or self.average)
        scales = take_out(self.model)
        path = self.folder / "model.pt"
        if not self.group.speaks:
            return path
        frontend, config = frontend_to_dict(self.frontend), models.config_of(self.model)
        tokens, architecture = list(self.tokens.symbols), self.recipe.architecture
        supernet = self.recipe.supernet.choices if self.recipe.supernet else {}
        loaded = LoadedModel(self.model, tokens, frontend, architecture, config, metrics, scales, supernet)
        save_model(path, loaded)
        return path


def train(recipe: Recipe, folder: Path, quiet: bool = False, group: Group = ALONE) -> Path:
    """Run or resume a recipe in `folder` and return the path of model.pt. Raises InputError."""
    if group.speaks:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp"):  # by a run that was killed while it wrote
            left.unlink()
    trainer = Trainer(recipe, folder, group)
    if not group.speaks:
        trainer.run(quiet)
        return trainer.finish()
    write_text(folder / "recipe.json", json.dumps(asdict(recipe), indent=1) + "\n")
    write_text(folder / "environment.json", json.dumps(environment(), indent=1) + "\n")
    with tracked(recipe, folder, trainer.step, quiet) as trackers:
        trainer.run(quiet, trackers)
        path = trainer.finish()
        _draw_curve(folder)
        for tracker in trackers:
            tracker.keep([path for path in (path, folder / "curve.png") if path.exists()])
    return path


def run_command(args: argparse.Namespace) -> dict[str, Any] | None:
    """`edge-speech train`: arguments `config`, `output`, `set`, `quiet` → {"model", "metrics"}; None in the
    processes of a group that do not speak for it."""
    group = group_of_environment()
    with distributed.connected(group):
        path = train(read_recipe(Path(args.config), args.set or []), Path(args.output), args.quiet, group)
    if not group.speaks:
        return None
    metrics = read_plain(path, checkpoint.FORMAT, checkpoint.VERSION)["metrics"]
    return {"model": str(path), "metrics": {k: v for k, v in metrics.items() if k != "recipe"}}


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """What must not change between the start of a run and its resumption, as plain data."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    for name in ("root", "cache"):
        plain["data"].pop(name)
    for name in ("quantization", "supernet"):
        if plain[name] is None:  # as runs before there was the section have it
            plain.pop(name)
    plain["run"] = {"seed": recipe.run.seed}
    return plain


def _tokens(recipe: Recipe) -> Tokens:
    data = recipe.data
    learnt = () if data.vocabulary or data.units == "numbers" else texts(recipe)
    return Tokens.build(data.units, learnt, data.vocabulary, data.vocabulary_size)


def _check_watched(recipe: Recipe) -> None:
    """What follows the dev error rate needs one."""
    how = recipe.optimizer
    if not recipe.data.dev and (how.schedule == "plateau" or how.early_stopping):
        name = (
            "schedule = 'plateau'" if how.schedule == "plateau" else f"early_stopping = {how.early_stopping}"
        )
        raise InputError(f"recipe: optimizer.{name} follows the dev error rate; add a [[data.dev]] source")


def _draw_curve(folder: Path) -> None:
    if importlib.util.find_spec("matplotlib") is not None:
        plot.plot(plot.read_log(folder / "log.jsonl"), folder / "curve.png")


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; only the main one acts on it."""
    import signal

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
