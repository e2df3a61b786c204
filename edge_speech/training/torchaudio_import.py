"""torchaudio, imported only by what is made of its parts."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from edge_speech.errors import InputError


def import_torchaudio(module: str) -> ModuleType:
    """`module` of torchaudio, such as "torchaudio.models". Raises InputError where it is not installed.

    Its wheels are linked against CUDA: beside a CPU build of torch their library does not load (OSError), and
    beside one of another CUDA they refuse to (RuntimeError). torchaudio's Python needs that library only in
    `forced_align` and `rnnt_loss`, so it is then imported without.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f'{module} needs {error.name}, which is not installed; `pip install "edge-speech[train]"`'
        ) from error
    except (OSError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _no_extension()
        return importlib.import_module(module)


def _no_extension() -> ModuleType:
    """What torchaudio's own `_extension` holds where it was built without its library."""
    extension: Any = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension.fail_if_no_align = lambda function: function
    return extension  # type: ignore[no-any-return]
