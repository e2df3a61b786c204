"""Plain aligned tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def print_table(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> None:
    """Print rows of equal length; columns are right-aligned but those in `left`."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
