"""The best weights of a run by dev error rate, and when to stop looking for better ones."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


class EarlyStopping:
    """Keeps the best weights; `exhausted` after `patience` evaluations without better. 0 does nothing."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.weights: dict[str, Tensor] | None = None
        self.error_rate, self.step, self.without_better = math.inf, 0, 0

    def evaluated(self, error_rate: float, step: int, weights: dict[str, Tensor]) -> None:
        """Tell it of an evaluation; better weights are copied."""
        if not self.patience:
            return
        self.without_better += 1
        if error_rate < self.error_rate:
            self.error_rate, self.step, self.without_better = error_rate, step, 0
            self.weights = {name: value.detach().clone() for name, value in weights.items()}

    @property
    def exhausted(self) -> bool:
        """Nothing better for `patience` evaluations."""
        return bool(self.patience) and self.without_better >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: value for name, value in vars(self).items() if name != "patience"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        vars(self).update(state)
