"""Sentences spoken by espeak-ng in many voices, as a training set: a manifest in NeMo's form and its audio.

    apt-get install espeak-ng
    python examples/english_small/synthesise.py text.txt -o corpora/espeak --count 4000

Each recording is some words in a row from a line of the text (plain or .gz), in a voice, pitch and speed of
its own; the same for the same seed and espeak-ng. It sounds like a machine: a few such recordings among real
ones teach words that those lack, and no more.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import shutil
import subprocess
from pathlib import Path
from random import Random

import soundfile
from tqdm import tqdm

from edge_speech.features import resample
from edge_speech.training.run_log import write_text

SAMPLE_RATE = 16000
LANGUAGES = ("en-us", "en-us", "en-gb", "en-gb-x-rp", "en-029")
# The variants that sound least like a robot: https://github.com/espeak-ng/espeak-ng/blob/master/docs/voices.md
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("linda", "Andrea", "Annie", "belinda", "steph", "Alicia", "Denis", "Marco", "David", "benjamin"),
    *("Michael", "Mike", "ed", "Lee", "max", "paul", "rob", "Diogo", "victor", "john", "pablo"),
)


def read_lines(path: Path) -> list[list[str]]:
    """The words of each line, in lower case."""
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    with opened as file:
        return [line.lower().split() for line in file if line.strip()]


def some_words(rng: Random, line: list[str]) -> str:
    """Three to eleven words in a row."""
    count = rng.randint(3, 11)
    start = rng.randint(0, max(0, len(line) - count))
    return " ".join(line[start : start + count])


def speak(rng: Random, text: str, path: Path) -> dict[str, object]:
    """Write the recording and return its line of the manifest. Raises CalledProcessError."""
    voice = f"{rng.choice(LANGUAGES)}+{rng.choice(VARIANTS)}"
    pitch, words_per_minute = str(rng.randint(25, 95)), str(rng.randint(110, 175))
    command = ["espeak-ng", "-v", voice, "-p", pitch, "-s", words_per_minute, "--stdout", "--", text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    waveform = resample(samples, rate, SAMPLE_RATE)
    soundfile.write(path, waveform, SAMPLE_RATE)
    duration = round(len(waveform) / SAMPLE_RATE, 3)
    return {
        "audio_filepath": f"train/{path.name}",
        "duration": duration,
        "sample_rate": SAMPLE_RATE,
        "text": text,
        "speaker": voice,
    }


def main() -> None:
    """Speak and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng, lines = Random(args.seed), read_lines(args.text)
    if not lines:
        parser.error(f"{args.text} holds no words")
    if shutil.which("espeak-ng") is None:
        parser.error("espeak-ng is not installed; apt-get install espeak-ng")
    (args.output / "train").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in tqdm(range(args.count), unit="recording", dynamic_ncols=True):
        text = some_words(rng, rng.choice(lines))
        rows.append(speak(rng, text, args.output / "train" / f"{i:05d}.flac"))
    write_text(args.output / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
