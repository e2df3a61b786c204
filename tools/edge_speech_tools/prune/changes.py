"""What pruning changed, for people and reports."""

from __future__ import annotations

from typing import Any

from edge_speech.training.checkpoint import LoadedModel
from edge_speech_tools.prune import depth
from edge_speech_tools.prune.ratio import parameters_of
from edge_speech_tools.prune.width import settings_of


def settings(dense: LoadedModel, pruned: LoadedModel) -> dict[str, list[Any]]:
    """By name: what each setting that changed was and is."""
    before, after = settings_of(dense), settings_of(pruned)
    return {name: [before[name], after[name]] for name in before if before[name] != after[name]}


def of_model(dense: LoadedModel, pruned: LoadedModel) -> dict[str, Any]:
    """The settings that changed, how many parameters there were and are, and the share that is gone."""
    before, after = parameters_of(dense), parameters_of(pruned)
    counts = {"parameters": after, "dense_parameters": before, "ratio": round(1 - after / before, 4)}
    return {**counts, "changes": settings(dense, pruned)}


def of_weights(dense: LoadedModel, pruned: LoadedModel) -> list[dict[str, Any]]:
    """Every weight whose shape changed: its name in the dense model, its shape there and now, None where its
    layer is gone."""
    new, now = pruned.model.state_dict(), _names_now(dense, pruned)
    rows = []
    for name, value in dense.model.state_dict().items():
        shape = list(new[now[name]].shape) if name in now else None
        if value.ndim > 1 and shape != list(value.shape):
            rows.append({"weight": name, "before": list(value.shape), "after": shape})
    return rows


def _names_now(dense: LoadedModel, pruned: LoadedModel) -> dict[str, str]:
    """What the tensors of the dense model that are left are called in the pruned one."""
    names, kept = list(dense.model.state_dict()), pruned.metrics.get(depth.KEPT)
    if kept is None:
        return {name: name for name in names}
    stack = depth.stack_of(dense)
    numbers = {name: stack.number_in(name) for name in names}
    present = sorted({n for n in numbers.values() if n is not None})
    place = {old: present[i] for i, old in enumerate(kept)}
    found = {name: name for name in names if numbers[name] is None}
    for name, number in numbers.items():
        if number in place:
            found[name] = stack.renumbered(name, place[number])
    return found
