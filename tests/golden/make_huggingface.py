"""Small data sets as the datasets package writes them, for test_data_sources.py.

    python tests/golden/make_huggingface.py

Made with datasets 5.2.0, which only this script needs: `pip install datasets`.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
from datasets import Audio, Dataset, DatasetDict, Features, Value

HERE = Path(__file__).parent / "huggingface"
TEXTS = ("one two", "three", "four five")


def wav(row: int) -> bytes:
    """A twentieth of a second at 8 kHz, of another pitch in every row."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((np.sin(np.arange(400) * (0.2 + 0.1 * row)) * 8000).astype("<i2").tobytes())
    return content.getvalue()


def main() -> None:
    """Write them all."""
    audio = {"bytes": Value("binary"), "path": Value("string")}
    features = Features({"audio": audio, "sentence": Value("string"), "speaker": Value("string")})
    rows = [
        {"audio": {"bytes": wav(i), "path": f"{i}.wav"}, "sentence": text, "speaker": f"s{i % 2}"}
        for i, text in enumerate(TEXTS)
    ]
    data = Dataset.from_list(rows, features=features).cast_column("audio", Audio(decode=False))
    data.save_to_disk(HERE / "saved", num_shards=2)
    DatasetDict({"train": data, "test": data.select([2, 0])}).save_to_disk(HERE / "dict")
    data.to_parquet(HERE / "data.parquet")


if __name__ == "__main__":
    main()
