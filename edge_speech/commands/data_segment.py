"""edge-speech data segment"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_speech.audio import read_audio
from edge_speech.kaldi_output import check_kaldi_output, write_kaldi_directory
from edge_speech.lm.output import check_output, replaced
from edge_speech.progress import track
from edge_speech.segmentation import SegmentConfig, segment
from edge_speech.utterance import Utterance

SUMMARY = "cut long recordings into utterances at their pauses"
DESCRIPTION = """\
Find the utterances of long recordings by their energy and write a manifest of them, without texts: each line
has the file, an offset and a duration. No audio is written. Every command that takes a manifest reads such
parts of files. --kaldi writes the same parts as wav.scp, segments, utt2spk and spk2utt too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The recordings, the manifest, and where to cut."""
    default = SegmentConfig()
    parser.add_argument("audio", metavar="AUDIO", nargs="+", help="recordings")
    parser.add_argument("-o", "--output", metavar="MANIFEST", required=True, help="file to write")
    parser.add_argument("--kaldi", metavar="DIR", type=Path, help="also write this new Kaldi directory")
    parser.add_argument("--force", action="store_true", help="replace an existing manifest")
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
    if args.kaldi:
        check_kaldi_output(args.kaldi)
    audio_s, utterances = 0.0, []
    for name in track(args.audio, "segment", args.quiet):
        samples, sample_rate = read_audio(name)
        audio_s += len(samples) / sample_rate
        utterances += [
            _utterance(Path(name), sample_rate, *span) for span in segment(samples, sample_rate, config)
        ]
    if args.kaldi:
        write_kaldi_directory(args.kaldi, utterances)
    with replaced(args.output) as part:
        part.write_text("".join(_line(u) for u in utterances), encoding="utf-8")
    document = {"manifest": args.output, "utterances": len(utterances), "audio_s": round(audio_s, 3)}
    document["kept_s"] = round(sum(u.duration_s or 0.0 for u in utterances), 3)
    return document | ({"kaldi": str(args.kaldi)} if args.kaldi else {})


def _utterance(path: Path, sample_rate: int, start_s: float, end_s: float) -> Utterance:
    duration_s, extra = round(end_s - start_s, 3), {"sample_rate": sample_rate}
    return Utterance(path.absolute(), "", duration_s, extra, round(start_s, 3))


def _line(utterance: Utterance) -> str:
    times = {"offset": utterance.offset_s, "duration": utterance.duration_s}
    row = {"audio_filepath": str(utterance.audio_path), **times, **utterance.extra}
    return json.dumps(row, ensure_ascii=False) + "\n"


def show(document: dict[str, Any]) -> None:
    """One line."""
    print(
        f"{document['manifest']}  {document['utterances']} utterances, {document['kept_s']:.1f} s "
        f"of {document['audio_s']:.1f} s"
    )
