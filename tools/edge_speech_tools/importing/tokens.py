"""A tokens.txt of anybody's: `symbol id` lines in any order, the blank under any of its names, at any id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_speech.bundle import BLANK
from edge_speech.errors import InputError

# As sherpa-onnx looks for it: icefall's, k2's, WeNet's.
BLANKS = (BLANK, "<eps>", "<blank>")
_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Tokens:
    """Symbols by id, and the id of the blank among them."""

    symbols: tuple[str, ...]
    blank_id: int

    @property
    def order(self) -> list[int]:
        """The ids with the blank first, as a bundle has them here."""
        return [self.blank_id, *(i for i in range(len(self.symbols)) if i != self.blank_id)]

    @property
    def ordered(self) -> list[str]:
        """The symbols in that order, the blank under our name."""
        return [BLANK, *(self.symbols[i] for i in self.order[1:])]


def read_tokens(path: Path, blank: str = "") -> Tokens:
    """Read a tokens.txt; `blank` names the blank where it has none of the usual names. Raises InputError."""
    symbols = _symbols(path)
    names = [blank] if blank else [name for name in BLANKS if name in symbols]
    if not names or names[0] not in symbols:
        wanted = repr(blank) if blank else ", ".join(BLANKS)
        raise InputError(
            f'{path} has no blank ({wanted}); name it in the spec file: [decoder] blank = "SYMBOL"'
        )
    return Tokens(symbols, symbols.index(names[0]))


def _symbols(path: Path) -> tuple[str, ...]:
    found: dict[int, str] = {}
    for number, line in enumerate(_lines(path), 1):
        symbol, _, index = line.rpartition(" ")
        if not index.isdecimal():
            raise InputError(f"{path}:{number}: expected `symbol id`, got {line[:60]!r}")
        # sherpa-onnx reads a line with nothing but an id as the space
        symbol = symbol.strip() or "▁"
        if int(index) in found:
            raise InputError(
                f"{path}:{number}: id {index} is there twice, as {found[int(index)]!r} and {symbol!r}"
            )
        found[int(index)] = symbol
    if not found:
        raise InputError(f"{path}: no tokens in it; expected a line `symbol id` for each")
    missing = next((i for i in range(len(found)) if i not in found), None)
    if missing is not None:
        raise InputError(f"{path}: ids must be 0 to {len(found) - 1}, one a line; {missing} is missing")
    symbols = tuple(found[i] for i in range(len(found)))
    twice = (
        next((s for s in symbols if symbols.count(s) > 1), None) if len(set(symbols)) < len(symbols) else None
    )
    if twice is not None:
        raise InputError(f"{path}: symbol {twice!r} is there twice")
    return symbols


def _lines(path: Path) -> Sequence[str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is larger than {_MAX_BYTES} bytes; give the model's tokens.txt")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the model's tokens.txt") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; expected one `symbol id` per line") from None
    return [line for line in text.replace("\t", " ").splitlines() if line.strip()]
