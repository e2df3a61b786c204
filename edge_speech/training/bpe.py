"""Byte-pair pieces through SentencePiece (https://arxiv.org/abs/1808.06226).

Number 0 is SentencePiece's piece for what it cannot write and the blank of the model's tokens; the other
numbers are the same on both sides.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from edge_speech.errors import InputError

# Of one text, in bytes; SentencePiece leaves longer ones out, and its default of 4192 is a minute of speech.
MAX_TEXT_BYTES = 1 << 20


def learn(texts: Iterable[str], vocabulary_size: int) -> bytes:
    """A model of `vocabulary_size` pieces, blank included, that writes every character of `texts`.

    The same texts give the same pieces: one thread counts them, nothing is sampled. Raises InputError.
    """
    model, sentences = io.BytesIO(), [" ".join(text.split()) for text in texts if text.strip()]
    if not sentences:
        raise InputError("the training texts are empty; units 'bpe' are learnt from them")
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocabulary_size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            max_sentence_length=MAX_TEXT_BYTES,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(_explain(str(error), vocabulary_size)) from error
    return model.getvalue()


def pieces(model: bytes) -> tuple[str, ...]:
    """The pieces from number 1 on; "▁" begins a word."""
    processor = _processor(model)
    return tuple(processor.id_to_piece(n) for n in range(1, processor.get_piece_size()))


def encode(model: bytes, text: str) -> list[int] | None:
    """Numbers of the pieces of `text`, or None where it has a character that the model was not taught."""
    numbers: list[int] = _processor(model).encode(" ".join(text.split()))
    return None if 0 in numbers else numbers


@lru_cache(maxsize=4)
def _processor(model: bytes) -> Any:
    return _sentencepiece().SentencePieceProcessor(model_proto=model)


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise InputError(
            "data.units = 'bpe' needs sentencepiece, which is not installed; "
            'pip install "edge-speech[train]"'
        ) from error
    return sentencepiece


def _explain(error: str, vocabulary_size: int) -> str:
    reason = error.rpartition("] ")[2].strip() or error  # after SentencePiece's source line and condition
    return f"data.vocabulary_size {vocabulary_size} does not suit the training texts: {reason}"
