"""The published shapes of qwen, and tiny ones for tests."""

from __future__ import annotations

from typing import Any

from llm_run.core.ops.rotary_spec import RotaryScaling, RotarySpec

from .config import QwenConfig


def _first(
    vocab: int, hidden: int, layers: int, heads: int, ffn: int, length: int, positions: int, base: float = 1e4
) -> QwenConfig:
    head_dim = hidden // heads
    scaling = RotaryScaling(kind="dynamic_pow2", original_max_positions=length)
    return QwenConfig(
        generation=1, vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads, num_kv_heads=heads,
        head_dim=head_dim, ffn_size=ffn, max_positions=positions, norm_eps=1e-6,
        rotary=RotarySpec(head_dim, base, scaling=scaling), logn_length=length,
    )  # fmt: skip


def _later(
    generation: Any, vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, positions: int, *,
    head_dim: int = 0, eps: float = 1e-6, base: float = 1e6, tie: bool = False,
) -> QwenConfig:  # fmt: skip
    head_dim = head_dim or hidden // heads
    return QwenConfig(
        generation=generation, vocab_size=vocab, hidden_size=hidden, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, head_dim=head_dim, ffn_size=ffn, max_positions=positions, norm_eps=eps,
        rotary=RotarySpec(head_dim, base), tie_embeddings=tie,
    )  # fmt: skip


# Names are those of huggingface.co/Qwen, in small letters and with "qwen-" in front; base models where they differ.
SIZES: dict[str, QwenConfig] = {
    "tiny": _later(3, 512, 64, 4, 4, 2, 176, 512, head_dim=24),
    "tiny-v1": _first(512, 64, 4, 4, 176, 256, 512),
    "tiny-v2": _later(2, 512, 64, 4, 4, 2, 176, 512, tie=True),
    "tiny-v3": _later(3, 512, 64, 4, 4, 2, 176, 512, head_dim=24, tie=True),
    # Bai et al. 2023, arXiv:2309.16609, table 1
    "qwen-1.8b": _first(151936, 2048, 24, 16, 5504, 8192, 8192),
    "qwen-7b": _first(151936, 4096, 32, 32, 11008, 8192, 32768),
    "qwen-14b": _first(152064, 5120, 40, 40, 13696, 2048, 8192),
    "qwen-72b": _first(152064, 8192, 80, 64, 24576, 32768, 32768, 1e6),
    # Yang et al. 2024, arXiv:2407.10671, table 1
    "qwen2-0.5b": _later(2, 151936, 896, 24, 14, 2, 4864, 131072, tie=True),
    "qwen2-1.5b": _later(2, 151936, 1536, 28, 12, 2, 8960, 131072, tie=True),
    "qwen2-7b": _later(2, 152064, 3584, 28, 28, 4, 18944, 131072),
    "qwen2-72b": _later(2, 152064, 8192, 80, 64, 8, 29568, 131072, eps=1e-5),
    # Qwen team 2024, arXiv:2412.15115, table 1
    "qwen2.5-0.5b": _later(2, 151936, 896, 24, 14, 2, 4864, 32768, tie=True),
    "qwen2.5-1.5b": _later(2, 151936, 1536, 28, 12, 2, 8960, 131072, tie=True),
    "qwen2.5-3b": _later(2, 151936, 2048, 36, 16, 2, 11008, 32768, tie=True),
    "qwen2.5-7b": _later(2, 152064, 3584, 28, 28, 4, 18944, 131072),
    "qwen2.5-14b": _later(2, 152064, 5120, 48, 40, 8, 13824, 131072, eps=1e-5),
    "qwen2.5-32b": _later(2, 152064, 5120, 64, 40, 8, 27648, 131072, eps=1e-5),
    "qwen2.5-72b": _later(2, 152064, 8192, 80, 64, 8, 29568, 131072, eps=1e-5),
    # Qwen team 2025, arXiv:2505.09388, table 1
    "qwen3-0.6b": _later(3, 151936, 1024, 28, 16, 8, 3072, 40960, head_dim=128, tie=True),
    "qwen3-1.7b": _later(3, 151936, 2048, 28, 16, 8, 6144, 40960, head_dim=128, tie=True),
    "qwen3-4b": _later(3, 151936, 2560, 36, 32, 8, 9728, 40960, head_dim=128, tie=True),
    "qwen3-8b": _later(3, 151936, 4096, 36, 32, 8, 12288, 40960, head_dim=128),
    "qwen3-14b": _later(3, 151936, 5120, 40, 40, 8, 17408, 40960, head_dim=128),
    "qwen3-32b": _later(3, 151936, 5120, 64, 64, 8, 25600, 40960, head_dim=128),
}
