"""The training loop: `edge-speech train RECIPE.toml -o DIR`.

DIR gets `recipe.json` (what ran), `log.jsonl` (one line per report), `checkpoint.pt` (to resume from) and, at
the end, `model.pt`. The weights kept are an exponential moving average of those the optimiser moves.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR
from torch.utils.data import DataLoader
from tqdm import tqdm

from edge_speech.errors import InputError
from edge_speech.features import frontend_from_dict, frontend_to_dict
from edge_speech.training import models
from edge_speech.training.checkpoint import LoadedModel, read_plain, save_atomically, save_model
from edge_speech.training.data import Batch, TrainingSet, evaluation_set, texts
from edge_speech.training.models import StreamingModel
from edge_speech.training.recipe import Optimizer, Recipe, read_recipe
from edge_speech.training.tokens import Tokens

CHECKPOINT_FORMAT = "edge-speech-checkpoint"
VERSION = 1


class Trainer:
    """A run in one folder: the model, its optimiser and how far they are."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        torch.set_num_threads(recipe.run.threads)
        torch.manual_seed(recipe.run.seed)
        self.recipe, self.folder = recipe, folder
        self.device = _device(recipe.run.device)
        self.frontend = frontend_from_dict(recipe.frontend)
        data = recipe.data
        self.tokens = Tokens.build(data.units, () if data.vocabulary else texts(recipe), data.vocabulary)
        self.training_set = TrainingSet(recipe, self.tokens, self.frontend)
        self.evaluation = evaluation_set(recipe, self.tokens, self.frontend)
        shape = {"num_features": self.frontend.num_mel_bins, "vocab_size": len(self.tokens.symbols)}
        self.model = models.build(recipe.architecture, {**recipe.model, **shape})
        self.step = 0
        self.metrics: dict[str, Any] = {}
        self._start_or_resume()

    def _start_or_resume(self) -> None:
        checkpoint = self.folder / "checkpoint.pt"
        saved = read_plain(checkpoint, CHECKPOINT_FORMAT, VERSION) if checkpoint.exists() else None
        if saved is None:
            self.model.normalise(*self.training_set.statistics())
        elif saved["recipe"] != _comparable(self.recipe):
            raise InputError(f"{checkpoint} comes from another recipe; use a new -o folder or remove it")
        self.model.to(self.device)
        self.optimizer = _optimizer(self.model, self.recipe.optimizer)
        self.scheduler = _scheduler(self.optimizer, self.recipe.optimizer)
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.average = {k: v.to(self.device) for k, v in saved["average"].items()}
        self.step, self.metrics = saved["step"], saved["metrics"]
        torch.set_rng_state(saved["random"])

    def save(self) -> None:
        """Write `checkpoint.pt`."""
        state = {
            "format": CHECKPOINT_FORMAT,
            "version": VERSION,
            "recipe": _comparable(self.recipe),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "average": self.average,
            "step": self.step,
            "metrics": self.metrics,
            "random": torch.get_rng_state(),
        }
        save_atomically(state, self.folder / "checkpoint.pt")

    def run(self, quiet: bool) -> None:
        """Train to the last step. On Ctrl-C the state is saved and KeyboardInterrupt raised again."""
        try:
            self._run(quiet)
        except KeyboardInterrupt:
            self.save()
            if not quiet:
                print(f"saved at step {self.step}; the same command goes on from there", file=sys.stderr)
            raise

    def _run(self, quiet: bool) -> None:
        run, total = self.recipe.run, self.recipe.optimizer.steps
        started, losses = time.monotonic(), []
        progress = tqdm(total=total, initial=self.step, unit="step", disable=quiet, dynamic_ncols=True)
        with progress:
            for batch in self._batches():
                loss, norm = self._update(batch)
                losses.append(loss)
                progress.update()
                if self.step % run.evaluate_every == 0 or self.step == total:
                    self._evaluate()
                if self.step % run.log_every == 0 or self.step == total:
                    mean = sum(losses) / len(losses)
                    losses = []
                    self._log(mean, norm, time.monotonic() - started)
                    progress.set_postfix(loss=f"{mean:.3f}", **self.metrics)
                if self.step % run.checkpoint_every == 0 or self.step == total:
                    self.save()

    def _batches(self) -> DataLoader[Batch]:
        workers = self.recipe.run.workers
        return DataLoader(
            self.training_set,
            sampler=range(self.step, self.recipe.optimizer.steps),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            generator=torch.Generator(),  # its own, so that starting a loader draws nothing from dropout's
            worker_init_fn=_ignore_interrupts if workers else None,
        )

    def _update(self, batch: Batch) -> tuple[float, float]:
        self.model.train()
        loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.gradient_clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self._update_average()
        return loss.item(), norm.item()

    def _loss(self, batch: Batch) -> Tensor:
        log_probs = self.model.parallel(batch.features.to(self.device)).transpose(0, 1)
        factor = self.model.spec.subsampling_factor
        lengths = (batch.feature_lengths + factor - 1) // factor
        targets = batch.targets.to(self.device)
        return functional.ctc_loss(log_probs, targets, lengths, batch.target_lengths, zero_infinity=True)

    def _update_average(self) -> None:
        decay = min(self.recipe.optimizer.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
                else:
                    self.average[name].copy_(value)

    def _evaluate(self) -> None:
        """Word error rate of the averaged weights on the recipe's dev sources, greedy decoding."""
        if not self.evaluation:
            return
        kept = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        with torch.no_grad():
            found = [
                greedy(self.model, features.to(self.device), self.tokens) for features, _ in self.evaluation
            ]
        self.model.load_state_dict(kept)
        self.metrics["dev_wer"] = round(100 * jiwer.wer([text for _, text in self.evaluation], found), 2)

    def _log(self, loss: float, norm: float, elapsed_s: float) -> None:
        line: dict[str, Any] = {"step": self.step, "loss": round(loss, 5), "gradient_norm": round(norm, 4)}
        line["learning_rate"] = self.scheduler.get_last_lr()[0]
        line["elapsed_s"] = round(elapsed_s, 1)
        if self.step % self.recipe.run.evaluate_every == 0 or self.step == self.recipe.optimizer.steps:
            line.update(self.metrics)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self) -> Path:
        """Write `model.pt` with the averaged weights."""
        self.model.load_state_dict(self.average)
        path = self.folder / "model.pt"
        frontend, config = frontend_to_dict(self.frontend), models.config_of(self.model)
        metrics = {**self.metrics, "steps": self.step, "recipe": _comparable(self.recipe)}
        save_model(
            path,
            LoadedModel(
                self.model, list(self.tokens.symbols), frontend, self.recipe.architecture, config, metrics
            ),
        )
        return path


def greedy(model: StreamingModel, features: Tensor, tokens: Tokens) -> str:
    """Best path text of features (1, T, F) through the whole-utterance forward."""
    best = torch.unique_consecutive(model.parallel(features)[0].argmax(dim=1))
    return tokens.decode([int(n) for n in best if n])


def train(recipe: Recipe, folder: Path, quiet: bool = False) -> Path:
    """Run or resume a recipe in `folder` and return the path of model.pt. Raises InputError."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe, folder)
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n", encoding="utf-8")
    trainer.run(quiet)
    return trainer.finish()


def run_command(args: argparse.Namespace) -> dict[str, Any]:
    """`edge-speech train`: arguments `config`, `output`, `set`, `quiet` → {"model", "metrics"}."""
    path = train(read_recipe(Path(args.config), args.set or []), Path(args.output), args.quiet)
    metrics = read_plain(path, "edge-speech-model", VERSION)["metrics"]
    return {"model": str(path), "metrics": {k: v for k, v in metrics.items() if k != "recipe"}}


def _comparable(recipe: Recipe) -> dict[str, Any]:
    """What must not change between the start of a run and its resumption, as plain data."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    plain["data"].pop("root")
    plain["run"] = {"seed": recipe.run.seed}
    return plain


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}; use auto, cpu or cuda") from error


def _optimizer(model: nn.Module, how: Optimizer) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": how.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=how.learning_rate, betas=(0.9, 0.98))


def _scheduler(optimizer: torch.optim.Optimizer, how: Optimizer) -> LRScheduler:
    warmup = LinearLR(optimizer, start_factor=1e-3, total_iters=how.warmup_steps)
    cosine = CosineAnnealingLR(optimizer, T_max=max(1, how.steps - how.warmup_steps))
    return SequentialLR(optimizer, [warmup, cosine], milestones=[how.warmup_steps])


def _ignore_interrupts(_: int) -> None:
    """Ctrl-C reaches every process of the terminal; only the main one acts on it."""
    import signal

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
