"""edge-speech data segment"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_speech.audio import read_audio
from edge_speech.lm.output import check_output, replaced
from edge_speech.progress import track
from edge_speech.segmentation import SegmentConfig, segment

SUMMARY = "cut long recordings into utterances at their pauses"
DESCRIPTION = """\
Find the utterances of long recordings by their energy and write a manifest of them, without texts: each line
has the file, an offset and a duration. No audio is written. Every command that takes a manifest reads such
parts of files."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recordings, the manifest, and where to cut."""
    default = SegmentConfig()
    parser.add_argument("audio", metavar="AUDIO", nargs="+", help="recordings")
    parser.add_argument("-o", "--output", metavar="MANIFEST", required=True, help="file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    for option, value, what in (
        ("--pause-s", default.pause_s, "pauses that part utterances"),
        ("--margin-s", default.margin_s, "what stays of a pause on either side"),
        ("--min-s", default.min_s, "drop what is shorter"),
        ("--max-s", default.max_s, "cut what is longer at its quietest place"),
    ):
        parser.add_argument(
            option, metavar="S", type=float, default=value, help=f"{what} (default: {value:g})"
        )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the manifest. Raises InputError."""
    config = SegmentConfig(args.pause_s, args.margin_s, args.min_s, args.max_s)
    check_output(args.output, args.force)
    audio_s = speech_s = 0.0
    rows = []
    for name in track(args.audio, "segment", args.quiet):
        samples, sample_rate = read_audio(name)
        audio_s += len(samples) / sample_rate
        for start_s, end_s in segment(samples, sample_rate, config):
            speech_s += end_s - start_s
            times = {"offset": round(start_s, 3), "duration": round(end_s - start_s, 3)}
            rows.append({"audio_filepath": str(Path(name).absolute()), **times, "sample_rate": sample_rate})
    with replaced(args.output) as part:
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    document = {"manifest": args.output, "utterances": len(rows)}
    return document | {"audio_s": round(audio_s, 3), "kept_s": round(speech_s, 3)}


def show(document: dict[str, Any]) -> None:
    """One line."""
    print(
        f"{document['manifest']}  {document['utterances']} utterances, {document['kept_s']:.1f} s "
        f"of {document['audio_s']:.1f} s"
    )
