"""Sentences in, one embedding of length 1 for each out; model.onnx between them is a transformer like MiniLM, but tiny.

The tokenizer is WordPiece, as BERT has it. A larger model would bring its tokenizer.json, and use the package
`tokenizers`.
"""

import re

import numpy as np

IDEMPOTENT = True

LONGEST = 32  # tokens of a sentence; what comes after them is left out
WORDS = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")


def load(directory):
    global TOKENS
    TOKENS = {token: number for number, token in enumerate((directory / "vocab.txt").read_text().split())}


def before(text):
    rows = [numbers(sentence) for sentence in text]
    ids = np.zeros((len(rows), max(map(len, rows), default=1)), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def after(last_hidden_state, attention_mask):
    """The mean over the tokens of each sentence. `attention_mask` is what `before` returned."""
    weights = attention_mask[:, :, np.newaxis].astype(np.float32)
    mean = (last_hidden_state * weights).sum(axis=1) / weights.sum(axis=1)
    return {"embedding": mean / np.linalg.norm(mean, axis=1, keepdims=True)}


def numbers(sentence):
    """The tokens of a sentence, by their numbers in the vocabulary."""
    if not sentence.strip():
        raise ValueError("expected a sentence, got an empty text")
    found = [TOKENS["[CLS]"]]
    for word in WORDS.findall(sentence.decode(errors="replace").lower()):
        found += pieces(word)
    return [*found[: LONGEST - 1], TOKENS["[SEP]"]]


def pieces(word):
    """A word as the longest known pieces, "play ##ing"; [UNK] if it has none."""
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if not start else f"##{word[start:end]}"
            if piece in TOKENS:
                found.append(TOKENS[piece])
                start = end
                break
        else:
            return [TOKENS["[UNK]"]]
    return found
