"""Output files that are there completely or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_speech.errors import InputError


def check_output(output: Path | str, force: bool) -> None:
    """Before the work, not after it. Raises InputError when `output` exists or cannot be made."""
    output = Path(output)
    if output.is_dir() or (output.exists() and not force):
        raise InputError(f"{output} exists; choose another name or add --force to replace a file")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent}: no such directory for {output.name}; make it first")


@contextmanager
def replaced(output: Path | str) -> Iterator[Path]:
    """A path to write to; what is there becomes `output` when all went well."""
    output = Path(output)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as work:
        part = Path(work) / "part"
        yield part
        part.replace(output)
