"""Sentences out of text files: one a line, words between spaces."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_speech.errors import InputError
from edge_speech.progress import byte_bar

_LONGEST_LINE = 1 << 24  # characters
_LINES_PER_TICK = 4096
_GZIP = b"\x1f\x8b"


def read_sentences(path: Path | str, label: str = "", quiet: bool = True) -> Iterator[list[str]]:
    """The words of each line that has any, from plain or .gz UTF-8 text, with a progress bar over its bytes.

    Nothing but the line at hand is kept in memory. Raises InputError naming the line.
    """
    path, number = Path(path), 0
    if not path.is_file():
        raise InputError(f"{path}: no such text file; give UTF-8 text, one sentence a line, plain or .gz")
    try:
        with path.open("rb") as raw, byte_bar(path.stat().st_size, label, quiet) as tick:
            for number, line in enumerate(_lines(raw), start=1):
                if len(line) == _LONGEST_LINE:
                    raise InputError(
                        f"{path}:{number}: more than {_LONGEST_LINE} characters; break the line up"
                    )
                if number % _LINES_PER_TICK == 0:
                    tick(raw.tell())
                if words := line.split():
                    yield words
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 soon after line {number}; convert it first") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged gzip data after line {number} ({error}); make it again") from None


def _lines(raw: BinaryIO) -> Iterator[str]:
    packed = raw.read(len(_GZIP)) == _GZIP
    raw.seek(0)
    text = io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, encoding="utf-8")
    return iter(lambda: text.readline(_LONGEST_LINE), "")
