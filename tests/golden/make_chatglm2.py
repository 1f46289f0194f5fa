"""Make chatglm2.npz: logits of PaddleNLP's ChatGLMv2ForCausalLM, and ids of its tokenizer.

Run in an environment with paddlenlp==3.0.0b4: python tests/golden/make_chatglm2.py
The weights are not stored: ``drawn.draw`` makes them again from the seed and the stored names and shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from drawn import draw
from paddlenlp.transformers import ChatGLMv2Config, ChatGLMv2ForCausalLM, ChatGLMv2Tokenizer

FILE = Path(__file__).with_name("chatglm2.npz")
SEED = 20230625
FIELDS: dict[str, Any] = {
    "model_type": "chatglm_v2",
    "architectures": ["ChatGLMv2ForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "multi_query_group_num": 2,
    "kv_channels": 16,
    "ffn_hidden_size": 80,
    "max_sequence_length": 32,
    "layernorm_epsilon": 1e-5,
    "add_qkv_bias": True,
}
TABLE = "chatglm_v2.rotary_pos_emb.inv_freq"
"""Not a weight, but among them in the file."""
TEXTS = (
    "It was the best of times, it was the worst of times.",
    "学而时习之，不亦说乎？",
    "mixed 中文 and English, 1234567890, naïve café",
    "def f(x):\n    return {'a': x ** 2}\n\n\n# end\n",
    "👩‍🚀🚀 emoji ✨ and ␀ odd \u200b spaces",
    "  two leading,\tone tab,\n\n  and three at the end   ",
)


def main() -> None:
    model = ChatGLMv2ForCausalLM(ChatGLMv2Config(**FIELDS))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name != TABLE}
    model.set_state_dict({name: paddle.to_tensor(array) for name, array in draw(shapes, SEED).items()})
    model.eval()
    ids = np.random.default_rng(7).integers(3, FIELDS["vocab_size"], [2, 24])
    with paddle.no_grad():
        logits = model(paddle.to_tensor(ids))
    logits = logits[0] if isinstance(logits, tuple) else logits
    vocabulary = FILE.parents[3] / "shared" / "data" / "tokenizers" / "chatglm2" / "tokenizer.model"
    tokenizer = ChatGLMv2Tokenizer(str(vocabulary))
    np.savez_compressed(
        FILE,
        about=np.array(json.dumps({"seed": SEED, "fields": FIELDS, "shapes": shapes})),
        texts=np.array(json.dumps({text: tokenizer(text)["input_ids"] for text in TEXTS})),
        ids=ids,
        logits=logits.numpy(),
    )


if __name__ == "__main__":
    main()
