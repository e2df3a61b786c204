"""edge-speech data pinyin"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from edge_speech.errors import InputError
from edge_speech.lm.output import check_output, replaced
from edge_speech.manifest import read_manifest
from edge_speech.pinyin import romanizer
from edge_speech.utterance import Utterance

SUMMARY = "write a manifest with its Chinese texts in pinyin"
DESCRIPTION = """\
Spell the texts of a manifest in pinyin, one syllable a word, and write a manifest of them beside or away from
the recordings. A recipe with units = "characters" then learns the letters of pinyin, which little speech is
enough for; thousands of hanzi need far more. Scores and language models use the same spelling."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The manifests and the spelling."""
    parser.add_argument("manifest", metavar="MANIFEST", help="any form that training takes")
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="manifest to write")
    parser.add_argument("--tones", action="store_true", help="number the tones, as in she4 ding4")
    parser.add_argument("--force", action="store_true", help="replace an existing manifest")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the manifest. Raises InputError."""
    check_output(args.output, args.force)
    romanize, utterances = romanizer(args.tones), read_manifest(args.manifest)
    if not any(romanize(u.text) != u.text for u in utterances):
        raise InputError(f"{args.manifest}: no text of it changes in pinyin; give one with Chinese texts")
    folder = Path(args.output).absolute().parent
    with replaced(args.output) as part:
        part.write_text("".join(_line(u, romanize(u.text), folder) for u in utterances), encoding="utf-8")
    return {"manifest": args.output, "utterances": len(utterances)}


def _line(utterance: Utterance, text: str, folder: Path) -> str:
    row: dict[str, Any] = {"audio_filepath": os.path.relpath(utterance.audio_path.absolute(), folder)}
    times = {"offset": utterance.offset_s, "duration": utterance.duration_s}
    row |= {name: value for name, value in times.items() if value is not None}
    row |= {"text": text, **utterance.extra}
    return json.dumps(row, ensure_ascii=False) + "\n"


def show(document: dict[str, Any]) -> None:
    """One line."""
    print(f"{document['manifest']}  {document['utterances']} utterances")
