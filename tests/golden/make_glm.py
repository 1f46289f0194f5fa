"""Make glm.npz: logits of PaddleNLP's GLMForConditionalGeneration on a tiny model with drawn weights, and token ids.

Run with an interpreter that has paddlenlp 3.0.0b4: ``python tests/golden/make_glm.py``. The tests import this file for
its configuration, weights and inputs; only ``main`` needs PaddleNLP.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("glm.npz")
CONFIG: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_layers": 3,
    "num_attention_heads": 4,
    "max_sequence_length": 24,
    "layernorm_epsilon": 1e-5,
    "embedding_dropout_prob": 0.1,
    "attention_dropout_prob": 0.1,
    "output_dropout_prob": 0.1,
}
CLS, MASK, SMASK, GMASK, END, SOP = 80, 81, 82, 83, 84, 85
PROMPTS = {
    # what build_inputs_for_generation makes: context, end, then the piece after <|startofpiece|>
    "answer": [CLS, 11, 57, 23, 8, GMASK, END, SOP, 30, 12, 77, 5],
    "blank": [CLS, 44, MASK, 9, 71, END, SOP, 28, 17],
    "sentence": [CLS, 33, 2, SMASK, 61, MASK, END, SOP, 19, 50, 6],
}

TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
    "  two leading,\tone tab,\n\n  and three at the end   ",
)


def weights() -> dict[str, np.ndarray]:
    """Return every weight in PaddleNLP's names and layout, each drawn from a seed of its own name."""
    hidden, rows = CONFIG["hidden_size"], CONFIG["max_sequence_length"] + 1
    shapes: dict[str, tuple[int, ...]] = {
        "word_embeddings.weight": (CONFIG["vocab_size"], hidden),
        "transformer.position_embeddings.weight": (rows, hidden),
        "transformer.block_position_embeddings.weight": (rows, hidden),
    }
    for index in range(CONFIG["num_layers"]):
        block = f"transformer.layers.{index}."
        for linear, (inputs, outputs) in {
            "attention.query_key_value": (hidden, 3 * hidden),
            "attention.dense": (hidden, hidden),
            "mlp.dense_h_to_4h": (hidden, 4 * hidden),
            "mlp.dense_4h_to_h": (4 * hidden, hidden),
        }.items():
            shapes[f"{block}{linear}.weight"] = (inputs, outputs)
            shapes[f"{block}{linear}.bias"] = (outputs,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{block}{norm}.{part}": (hidden,) for part in ("weight", "bias")}
    shapes |= {f"transformer.final_layernorm.{part}": (hidden,) for part in ("weight", "bias")}
    return {f"glm.{name}": _draw(name, shape) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    centre = 1.0 if name.endswith("layernorm.weight") else 0.0
    return (centre + 0.2 * noise).astype(np.float32)


def main() -> None:
    import paddle
    from paddlenlp.transformers import GLMConfig, GLMForConditionalGeneration
    from paddlenlp.transformers.glm.tokenizer import GLMChineseTokenizer

    model = GLMForConditionalGeneration(GLMConfig(output_predict=True, **CONFIG))
    missing, unexpected = model.set_state_dict({name: paddle.to_tensor(value) for name, value in weights().items()})
    assert not missing and not unexpected, (missing, unexpected)
    model.eval()
    logits = {}
    for name, ids in PROMPTS.items():
        # As GLMTokenizerMixin.build_inputs_for_generation: it takes the first blank of any kind.
        size, context = len(ids), ids.index(SOP)
        blank = min(ids.index(token) for token in (MASK, SMASK, GMASK) if token in ids)
        mask = np.tril(np.ones((1, 1, size, size), dtype=np.int64))
        mask[..., :context] = 1
        positions = [*range(context), *[blank] * (size - context)]
        blocks = [0] * context + list(range(1, size - context + 1))
        output = model(
            paddle.to_tensor([ids]),
            position_ids=paddle.to_tensor([[positions, blocks]]),
            attention_mask=paddle.to_tensor(mask),
            return_dict=True,
        )
        logits[name] = output.logits.numpy()[0].astype(np.float32)
    vocabulary = FILE.parents[3] / "shared" / "data" / "tokenizers" / "glm" / "cog-pretrain.model"
    tokenizer = GLMChineseTokenizer(str(vocabulary))
    # Without the tokens around a text: PaddleNLP has no ids for them where added_tokens.json is missing.
    ids = {f"ids{number}": np.array(tokenizer(text)["input_ids"][1:-1]) for number, text in enumerate(TEXTS)}
    np.savez_compressed(FILE, **logits, **ids)


if __name__ == "__main__":
    main()
