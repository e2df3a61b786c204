"""The archives a corpus comes in, where they still lie beside what was unpacked: are they whole?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from edge_speech.errors import InputError
from edge_speech.progress import byte_bar

_PIECE = 1 << 20


def check_archives(known: Mapping[str, str], folder: Path, quiet: bool = False) -> list[str]:
    """Names of the archives in `folder` or the one above it whose SHA-256 is the one `known`.

    Raises InputError on one that differs. What was unpacked from a damaged archive may lack files or sounds.
    """
    checked = []
    for name, digest in known.items():
        for path in (folder / name, folder.parent / name):
            if path.is_file():
                if (found := sha256_of(path, quiet)) != digest:
                    raise InputError(
                        f"{path} is damaged: its SHA-256 begins with {found[:8]}, published is {digest[:8]}; "
                        "download it again and unpack it anew, or delete it to go on with what is unpacked"
                    )
                checked.append(name)
                break
    return checked


def sha256_of(path: Path, quiet: bool = False) -> str:
    """Hexadecimal digest of a file, with a progress bar."""
    digest = hashlib.sha256()
    with path.open("rb") as file, byte_bar(path.stat().st_size, path.name, quiet) as reached:
        while piece := file.read(_PIECE):
            digest.update(piece)
            reached(file.tell())
    return digest.hexdigest()
