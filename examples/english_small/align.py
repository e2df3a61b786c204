"""When each phone of a corpus is said: forced alignment with pocketsphinx, as a CTM file beside the manifest.

    pip install pocketsphinx
    python examples/english_small/align.py data/speechocean762/train.jsonl

writes data/speechocean762/train.ctm, or what `-o` names: lines "recording channel start duration phone" in
seconds, the recording named by its file without folder and suffix. It aligns twice, words and then their
phones, with the US English model that pocketsphinx brings (BSD licence). A recording with a word that its
dictionary lacks, or that it cannot align, is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from pocketsphinx import Config, Decoder
from tqdm import tqdm

from edge_speech.features import resample
from edge_speech.manifest import Utterance, read_manifest
from edge_speech.training.run_log import write_text

SAMPLE_RATE = 16000
FRAME_S = 0.01


def phones(decoder: Decoder, utterance: Utterance) -> list[tuple[str, int, int]]:
    """Name, first frame and number of frames of each phone, pauses left out; none where that fails."""
    text = utterance.text.lower()
    if not text or any(decoder.lookup_word(word) is None for word in text.split()):
        return []
    samples, rate = utterance.read()
    waveform = resample(samples, rate, SAMPLE_RATE)
    pcm = (np.clip(waveform, -1, 1) * 32767).astype(np.int16).tobytes()
    try:
        decoder.set_align_text(text)
        _decode(decoder, pcm)
        decoder.set_alignment()
        _decode(decoder, pcm)
    except RuntimeError:  # the words do not fit the sound
        return []
    words = decoder.get_alignment() or []
    return [(p.name, p.start, p.duration) for word in words for p in word if p.name != "SIL"]


def _decode(decoder: Decoder, pcm: bytes) -> None:
    decoder.start_utt()
    try:
        decoder.process_raw(pcm, full_utt=True)
    finally:
        decoder.end_utt()


def main() -> None:
    """Align and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    # The search for the best path through a lattice, not needed here, gives up on a fifth of all recordings.
    decoder = Decoder(Config(lm=None, bestpath=False, loglevel="FATAL"))
    lines, aligned = [], 0
    utterances = read_manifest(args.manifest)
    for utterance in tqdm(utterances, unit="utterance", dynamic_ncols=True):
        found = phones(decoder, utterance)
        aligned += bool(found)
        name = utterance.audio_path.stem
        lines += [f"{name} 1 {start * FRAME_S:.2f} {n * FRAME_S:.2f} {phone}\n" for phone, start, n in found]
    output = args.output or args.manifest.with_suffix(".ctm")
    write_text(output, "".join(lines))
    print(f"{output}: {aligned} of {len(utterances)} recordings", file=sys.stderr)


if __name__ == "__main__":
    main()
