"""Make bloom.npz: logits of PaddleNLP's BloomForCausalLM, and token ids of its BloomTokenizer.

Run in an environment with paddlenlp==3.0.0b4: python tests/golden/make_bloom.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from paddlenlp.transformers import BloomConfig, BloomForCausalLM, BloomTokenizer
from paddlenlp_case import describe

FILE = Path(__file__).with_name("bloom.npz")
TOKENIZERS = FILE.parents[3] / "shared" / "data" / "tokenizers"
SHAPE = {"vocab_size": 64, "hidden_size": 48, "n_layer": 3, "n_head": 6}
TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
    "I'll say: don't (we've) ...   three  spaces\t\tand tabs   ",
)


def tokens() -> list[list[int]]:
    """Return the ids that PaddleNLP gives the texts, its files cut out of the published ``tokenizer.json``."""
    published = json.loads((TOKENIZERS / "bloom" / "tokenizer.bloom_style_12k.json").read_text())["model"]
    with tempfile.TemporaryDirectory() as directory:
        vocabulary, merges = Path(directory) / "vocab.json", Path(directory) / "merges.txt"
        vocabulary.write_text(json.dumps(published["vocab"]))
        lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in published["merges"]]
        merges.write_text("\n".join(["#version: 0.2", *lines, ""]))
        tokenizer = BloomTokenizer(str(vocabulary), str(merges))
        return [tokenizer(text)["input_ids"] for text in TEXTS]


if __name__ == "__main__":
    model = BloomForCausalLM(BloomConfig(**SHAPE))
    arrays = describe("bloom", model, {"lm_head.decoder_weight": "bloom.word_embeddings.weight"})
    np.savez_compressed(FILE, tokens=np.array(json.dumps(tokens())), **arrays)
