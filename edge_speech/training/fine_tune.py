"""Start a run from the weights of a trained model of the same shape: to go on, or to learn other tokens."""

from __future__ import annotations

from pathlib import Path

import torch

from edge_speech.errors import InputError
from edge_speech.training.checkpoint import LoadedModel, load_model
from edge_speech.training.frontends import TrainingFrontend, frontend_for
from edge_speech.training.models import Model
from edge_speech.training.tokens import Tokens

# The layer that gives log_probs, in every architecture.
OUTPUT = "output."


def take_weights(
    model: Model, path: Path, architecture: str, frontend: TrainingFrontend, tokens: Tokens
) -> LoadedModel:
    """Copy the weights of model.pt into `model`, the statistics of its features too; gives what it read.

    Where the tokens differ, the output layer stays fresh. Raises InputError where anything else does.
    """
    given = load_model(path)
    if given.architecture != architecture or frontend_for(architecture, given.frontend) != frontend:
        raise InputError(
            f"{path} is a {given.architecture} with the front end {given.frontend}; model.weights needs the "
            "recipe's own architecture and front end"
        )
    state = dict(given.model.state_dict())
    if tuple(given.tokens) != tokens.symbols:
        state = {name: value for name, value in state.items() if not name.startswith(OUTPUT)}
    own = model.state_dict()
    for name, value in own.items():
        if name in state and state[name].shape != value.shape:
            raise InputError(
                f"{path}: {name} is {tuple(state[name].shape)}, the recipe's {tuple(value.shape)}; "
                "give [model] the settings it was trained with"
            )
    if missing := sorted(name for name in own if name not in state and not name.startswith(OUTPUT)):
        raise InputError(f"{path} has no {missing[0]}; give [model] the settings it was trained with")
    if unknown := sorted(set(state) - set(own)):
        raise InputError(f"{path} has {unknown[0]} too; give [model] the settings it was trained with")
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)
    return given
