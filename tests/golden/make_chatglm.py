"""Make chatglm.npz: logits of PaddleNLP's ChatGLMForCausalLM on a tiny model with drawn weights, and token ids.

Run with an interpreter that has paddlenlp 3.0.0b4: ``python tests/golden/make_chatglm.py``. The tests import this file
for its configuration, weights and inputs; only ``main`` needs PaddleNLP.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("chatglm.npz")
CONFIG: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "inner_hidden_size": 80,
    "layernorm_epsilon": 1e-5,
    "max_sequence_length": 64,
    "mask_token_id": 90,
    "gmask_token_id": 91,
    "bos_token_id": 92,
    "eos_token_id": 93,
    "pad_token_id": 3,
}
PROMPTS = {
    # context, [gMASK], <sop>, answer: what chat and tuning use
    "answer": [11, 57, 23, 8, 41, 69, 91, 92, 30, 12, 77, 5, 64],
    # a blank in the middle of the context, and more than one context token after it
    "blank": [44, 9, 90, 71, 28, 92, 17, 83],
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
    hidden, inner = CONFIG["hidden_size"], CONFIG["inner_hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {"word_embeddings.weight": (CONFIG["vocab_size"], hidden)}
    for index in range(CONFIG["num_hidden_layers"]):
        block = f"layers.{index}."
        for linear, (inputs, outputs) in {
            "attention.query_key_value": (hidden, 3 * hidden),
            "attention.dense": (hidden, hidden),
            "mlp.dense_h_to_4h": (hidden, inner),
            "mlp.dense_4h_to_h": (inner, hidden),
        }.items():
            shapes[f"{block}{linear}.weight"] = (inputs, outputs)
            shapes[f"{block}{linear}.bias"] = (outputs,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{block}{norm}.{part}": (hidden,) for part in ("weight", "bias")}
    shapes |= {f"final_layernorm.{part}": (hidden,) for part in ("weight", "bias")}
    return {f"chatglm.transformer.{name}": _draw(name, shape) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    centre = 1.0 if name.endswith("layernorm.weight") else 0.0
    return (centre + 0.2 * noise).astype(np.float32)


def main() -> None:
    import paddle
    from paddlenlp.transformers import ChatGLMConfig, ChatGLMForCausalLM, ChatGLMTokenizer

    model = ChatGLMForCausalLM(ChatGLMConfig(**CONFIG))
    drawn = {name: paddle.to_tensor(value) for name, value in weights().items()}
    missing, unexpected = model.set_state_dict(drawn)
    assert set(missing) <= {"lm_head.decoder_weight"} and not unexpected, (missing, unexpected)
    model.eval()
    logits = {}
    for name, ids in PROMPTS.items():
        size, context = len(ids), ids.index(CONFIG["bos_token_id"])
        mask = np.tril(np.ones((1, 1, size, size), dtype=np.int64))
        mask[..., :context] = 1
        # Positions are left to PaddleNLP, which makes them from the ids.
        output = model(paddle.to_tensor([ids]), attention_mask=paddle.to_tensor(mask), use_cache=False)
        logits[name] = output[0].numpy()[0].astype(np.float32)
    vocabulary = FILE.parents[3] / "shared" / "data" / "tokenizers" / "chatglm" / "ice_text.approx.model"
    tokenizer = ChatGLMTokenizer(str(vocabulary), num_image_tokens=0)
    ids = {f"ids{number}": np.array(tokenizer(text)["input_ids"]) for number, text in enumerate(TEXTS)}
    np.savez_compressed(FILE, **logits, **ids)


if __name__ == "__main__":
    main()
