"""What moves the weights: AdamW, the schedules of its learning rate, and mixed precision. All of torch."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from edge_speech.errors import InputError
from edge_speech.training.recipe import Optimizer

WARMUP_START = 1e-3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def adamw(model: nn.Module, how: Optimizer) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": how.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=how.learning_rate, betas=(0.9, 0.98), fused=True)


class Schedule:
    """The learning rate: moved after every step and, for "plateau", after evaluations past the warm-up."""

    def __init__(self, optimizer: torch.optim.Optimizer, how: Optimizer) -> None:
        self.optimizer, self.warmup_steps = optimizer, how.warmup_steps
        self._of_steps = _SCHEDULES[how.schedule](optimizer, how)
        self._of_evaluations: ReduceLROnPlateau | None = None
        if how.schedule == "plateau":
            self._of_evaluations = ReduceLROnPlateau(
                optimizer, factor=how.plateau_factor, patience=how.plateau_patience
            )

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def stepped(self) -> None:
        """Tell it of a step of the optimiser, or of one left out because a gradient overflowed."""
        with warnings.catch_warnings():  # torch takes a first step that was left out for a wrong order
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
            self._of_steps.step()

    def evaluated(self, error_rate: float) -> None:
        """Tell it of an evaluation."""
        if self._of_evaluations is not None and self._of_steps.last_epoch >= self.warmup_steps:
            self._of_evaluations.step(error_rate)

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        evaluations = self._of_evaluations.state_dict() if self._of_evaluations else {}
        return {"steps": self._of_steps.state_dict(), "evaluations": evaluations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave; the rate itself is in the optimiser's."""
        self._of_steps.load_state_dict(state["steps"])
        if self._of_evaluations is not None:
            self._of_evaluations.load_state_dict(state["evaluations"])


def _warmup(optimizer: torch.optim.Optimizer, how: Optimizer) -> LRScheduler:
    start = WARMUP_START if how.warmup_steps else 1.0
    return LinearLR(optimizer, start_factor=start, total_iters=max(1, how.warmup_steps))


def _cosine(optimizer: torch.optim.Optimizer, how: Optimizer) -> LRScheduler:
    if not how.warmup_steps:
        return CosineAnnealingLR(optimizer, T_max=how.steps)
    warmup = _warmup(optimizer, how)
    cosine = CosineAnnealingLR(optimizer, T_max=max(1, how.steps - how.warmup_steps))
    return SequentialLR(optimizer, [warmup, cosine], milestones=[how.warmup_steps])


def _onecycle(optimizer: torch.optim.Optimizer, how: Optimizer) -> LRScheduler:
    """https://arxiv.org/abs/1708.07120, its rise as long as the warm-up; AdamW's betas stay as they are."""
    if how.warmup_steps >= how.steps:
        raise InputError(
            f"recipe: optimizer.warmup_steps is {how.warmup_steps}; "
            f"'onecycle' needs fewer than its {how.steps} steps"
        )
    total = how.steps + 1  # the rate after the last step counts too
    rise = (how.warmup_steps + 1) / total if how.warmup_steps else 0.0
    return OneCycleLR(
        optimizer,
        max_lr=how.learning_rate,
        total_steps=total,
        pct_start=rise,
        cycle_momentum=False,
    )


_SCHEDULES = {"cosine": _cosine, "onecycle": _onecycle, "plateau": _warmup}


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """The type of the products inside the model for `run.precision` on `device`."""
    if name != "auto":
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context the model runs in; float32 leaves everything as it is."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def grad_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Keeps the small gradients of float16 above zero; passes those of other types on."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
