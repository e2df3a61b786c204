"""Tiny corpora in their official layouts, with made-up audio: `NAME(folder)` lays one out."""

from __future__ import annotations

from pathlib import Path

import soundfile

from tiny import speech_like


def audio(path: Path, sample_rate: int = 16000, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech_like(seconds, sample_rate), sample_rate)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def librispeech(folder: Path) -> None:
    root = folder / "LibriSpeech"
    text(root / "SPEAKERS.TXT", ";ID |SEX| SUBSET\n14   | F | train-clean-100  | 25.03 | A Name\n")
    for split, speaker in (("train-clean-100", "14"), ("dev-clean", "84")):
        chapter = root / split / speaker / "208"
        lines = [f"{speaker}-208-{n:04d} IT'S CHAPTER {word}" for n, word in enumerate(("ONE", "TWO"))]
        text(chapter / f"{speaker}-208.trans.txt", "\n".join(lines) + "\n")
        for line in lines:
            audio(chapter / f"{line.split()[0]}.flac")


def aishell1(folder: Path) -> None:
    root = folder / "data_aishell"
    names = {"train": "BAC009S0002W0122", "dev": "BAC009S0724W0121", "test": "BAC009S0764W0121"}
    lines = [f"{name} 而 对 楼市 成交\n" for name in names.values()]
    text(root / "transcript" / "aishell_transcript_v0.8.txt", "".join(lines))
    for split, name in names.items():
        audio(root / "wav" / split / name[6:11] / f"{name}.wav")
    audio(root / "wav" / "train" / "S0002" / "BAC009S0002W0999.wav")  # officially some have no text


def speechcommands(folder: Path) -> None:
    root = folder / "speech_commands_v0.02"
    text(root / "validation_list.txt", "yes/aa_nohash_0.wav\n")
    text(root / "testing_list.txt", "no/bb_nohash_0.wav\n")
    for name in ("yes/aa_nohash_0", "yes/cc_nohash_1", "no/bb_nohash_0", "no/cc_nohash_0"):
        audio(root / f"{name}.wav")
    audio(root / "_background_noise_" / "pink_noise.wav", seconds=2.0)


def fsdd(folder: Path) -> None:
    audio(folder / "recordings" / "0_george_0.wav", 8000, 0.1)
    content = (folder / "recordings" / "0_george_0.wav").read_bytes()
    for digit in range(10):
        for take in range(50):
            (folder / "recordings" / f"{digit}_george_{take}.wav").write_bytes(content)


def speechocean762(folder: Path) -> None:
    root = folder / "speechocean762"
    for split, speaker in (("train", "0001"), ("test", "0003")):
        key = f"{speaker[1:]}010011"
        audio(root / "WAVE" / f"SPEAKER{speaker}" / f"{key}.WAV")
        files = {
            "wav.scp": f"{key}\tWAVE/SPEAKER{speaker}/{key}.WAV",
            "text": f"{key}\tWE CALL IT BEAR.",
            "utt2spk": f"{key}\t{speaker}",
            "spk2age": f"{speaker}\t6",
            "spk2gender": f"{speaker}\tm",
        }
        for name, content in files.items():
            text(root / split / name, content + "\n")


def ljspeech(folder: Path) -> None:
    root = folder / "LJSpeech-1.1"
    audio(root / "wavs" / "LJ001-0001.wav", 22050, 0.1)
    content = (root / "wavs" / "LJ001-0001.wav").read_bytes()
    names = [f"LJ{chapter:03d}-{n:04d}" for chapter in (1, 2) for n in range(1, 252)]
    for name in names:
        (root / "wavs" / f"{name}.wav").write_bytes(content)
    text(root / "metadata.csv", "".join(f'{name}|"In 1455|"In fourteen fifty-five,\n' for name in names))


LAYOUTS = {f.__name__: f for f in (librispeech, aishell1, speechcommands, fsdd, speechocean762, ljspeech)}
