"""AISHELL-1: Mandarin sentences and commands, 16 kHz, 178 h (Bu et al., 2017)."""

from __future__ import annotations

from pathlib import Path

from edge_speech.corpus import Corpus, find_root, normalise, read_table
from edge_speech.errors import InputError
from edge_speech.utterance import Utterance

SOURCE = "https://www.openslr.org/33"
SPLITS = ("train", "dev", "test")
_TRANSCRIPT = "aishell_transcript_v0.8.txt"


def read(folder: Path) -> Corpus:
    """wav/SPLIT/SPEAKER/ID.wav, the texts in one file; recordings without a text are left out."""
    root = find_root(folder, "data_aishell", ("wav",), SOURCE)
    texts = {
        name: normalise(text.replace(" ", "")) for name, text in read_table(root / "transcript" / _TRANSCRIPT)
    }
    lost = [split for split in SPLITS if not (root / "wav" / split).is_dir()]
    if lost:
        raise InputError(
            f"{root / 'wav'}: no {', '.join(lost)}; the speakers are archives of their own, unpack them: "
            f"cd {root / 'wav'} && for f in *.tar.gz; do tar xzf $f; done"
        )
    splits = {split: _split(root / "wav" / split, texts) for split in SPLITS}
    lost_texts = sorted(texts.keys() - {u.audio_path.stem for us in splits.values() for u in us})
    if lost_texts:
        raise InputError(
            f"{root / 'wav'}: no {lost_texts[0]}.wav, {len(lost_texts)} of {len(texts)} recordings with "
            f"a text are missing; unpack all speakers: {SOURCE}"
        )
    return Corpus(splits)


def _split(folder: Path, texts: dict[str, str]) -> list[Utterance]:
    """The text is without spaces: characters are what is recognised."""
    recordings = [path for path in sorted(folder.glob("*/*.wav")) if path.stem in texts]
    return [Utterance(p, texts[p.stem], extra={"speaker": p.parent.name}) for p in recordings]
