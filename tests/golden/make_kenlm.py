"""KenLM binary files of one small model, for test_lm_kenlm.py and cpp_runtime/tests/ngram_kenlm_test.cc.

    python tests/golden/make_kenlm.py BUILD_BINARY

BUILD_BINARY is the program of that name, built from the sources of kenlm 0.3.0 (`pip download --no-deps
--no-binary kenlm kenlm==0.3.0`) with KENLM_MAX_ORDER=6. The model lacks one 2-gram that ends a 3-gram, as
models of other trainers do.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edge_speech.lm.train import TrainConfig, train

HERE = Path(__file__).parent
KINDS = {"probing": [], "trie": ["trie"], "quantised": ["-q", "4", "-b", "4", "trie"]}
TEXT = """\
turn on the light
turn off the light in the küche
turn on the radio in the küche
play the radio
play music in the bad
turn off the music
turn on the light in the bad
is the light on
"""


def without_one_suffix(arpa: str) -> str:
    """Without the 2-gram "the küche" or the like: a 3-gram's end that begins no 3-gram."""
    sections = {n: arpa.split(f"\\{n}-grams:\n")[1].split("\n\n", maxsplit=1)[0].split("\n") for n in (2, 3)}
    longer = [line.split("\t")[1].split() for line in sections[3]]
    ends, begins = {tuple(words[1:]) for words in longer}, {tuple(words[:2]) for words in longer}
    ngrams = {tuple(line.split("\t")[1].split()): line for line in sections[2]}
    left_out = next(ngrams[words] for words in sorted(ends - begins) if words in ngrams)
    count = len(sections[2])
    return arpa.replace(left_out + "\n", "").replace(f"ngram 2={count}", f"ngram 2={count - 1}")


def main() -> None:
    build_binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        text, arpa = Path(folder) / "text", Path(folder) / "arpa"
        text.write_text(TEXT, encoding="utf-8")
        train(text, arpa, TrainConfig(order=4))
        (HERE / "kenlm.arpa").write_text(without_one_suffix(arpa.read_text("utf-8")), encoding="utf-8")
    for kind, options in KINDS.items():
        made = [str(HERE / "kenlm.arpa"), str(HERE / f"kenlm_{kind}.bin")]
        subprocess.run([build_binary, *options, *made], check=True, capture_output=True)


if __name__ == "__main__":
    main()
