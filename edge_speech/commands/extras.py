"""The lazy imports of what a device does not have."""

from __future__ import annotations

import importlib
from types import ModuleType

from edge_speech.errors import InputError


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module`. Raises InputError naming the pip extra when something it needs is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f'this command needs {error.name}, which is not installed; `pip install "edge-speech[{extra}]"`'
        ) from error
