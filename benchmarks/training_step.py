"""Training speed against Hugging Face transformers on PyTorch: a 34M llama, 4 x 512 tokens a step, float32, AdamW.

python benchmarks/training_step.py [--steps 15]

The two take turns step by step, in processes of their own, each with the environment that suits it. Needs torch and
transformers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
from turns import Side, serve

BATCH, LENGTH, VOCAB, HIDDEN, LAYERS, HEADS, FFN = 4, 512, 8192, 512, 8, 8, 1408
ADAMW = {"lr": 3e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
DECAY, MAX_NORM = 0.1, 1.0


def build_ours() -> Callable[[np.ndarray], float]:
    import paddle

    from llm_run.core.ops import AttentionMask, adamw_update, global_norm, linear_cross_entropy
    from llm_run.plugins.llama.config import LlamaConfig
    from llm_run.plugins.llama.model import LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig.from_fields(_fields()))
    params = model.parameters()
    firsts, seconds = ([paddle.zeros_like(param) for param in params] for _ in range(2))
    decays = [DECAY if param.ndim == 2 else 0.0 for param in params]
    positions_BS = paddle.arange(LENGTH).unsqueeze(0).expand([BATCH, LENGTH])
    count = 0

    def step(ids: np.ndarray) -> float:
        nonlocal count
        count += 1
        hidden = model(paddle.to_tensor(ids[:, :-1]), positions_BS, AttentionMask())
        loss_sum, tokens = linear_cross_entropy(hidden, model.head, paddle.to_tensor(ids[:, 1:]))
        loss = loss_sum / tokens
        loss.backward()
        grads = [param.grad for param in params]
        scale = min(1.0, MAX_NORM / global_norm(grads))
        adamw_update(params, grads, firsts, seconds, decays, step=count, grad_scale=scale, **ADAMW)
        model.clear_gradients(set_to_zero=False)
        return float(loss.item())

    return step


def build_theirs() -> Callable[[np.ndarray], float]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**_fields(), attn_implementation="sdpa", use_cache=False))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim != 2], "weight_decay": 0.0},
    ]
    betas = (ADAMW["beta1"], ADAMW["beta2"])
    optimizer = torch.optim.AdamW(groups, lr=ADAMW["lr"], betas=betas, eps=ADAMW["eps"], fused=True)

    def step(ids: np.ndarray) -> float:
        logits = model(torch.tensor(ids[:, :-1])).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ids[:, 1:]).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.item())

    return step


def _fields() -> dict[str, object]:
    return {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "intermediate_size": FFN, "max_position_embeddings": LENGTH,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    }  # fmt: skip


def work(side: str) -> Callable[[], float]:
    """Return one step over the next batch, which both sides draw alike."""
    step = build_ours() if side == "ours" else build_theirs()
    random = np.random.default_rng(0)
    return lambda: step(random.integers(0, VOCAB, (BATCH, LENGTH + 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(work(arguments.side))
        return
    sides = [Side(["--side", name], is_paddle=name == "ours") for name in ("ours", "theirs")]
    for side in sides * 2:  # the first steps also fill caches and memory pools
        side.work()
    speeds = []
    for step in range(1, arguments.steps + 1):
        done = [side.work() for side in sides]
        speeds.append([BATCH * LENGTH / seconds for seconds, _ in done])
        losses = [loss for _, loss in done]
        print(f"step {step:2}: llm-run {speeds[-1][0]:4.0f} tokens/s (loss {losses[0]:.3f}), ", end="")
        print(f"transformers {speeds[-1][1]:4.0f} (loss {losses[1]:.3f})", flush=True)
    for side in sides:
        side.stop()
    ours, theirs = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(mine / other for mine, other in speeds)
    print(f"medians: llm-run {ours:.0f} tokens/s, transformers {theirs:.0f}; ratio step by step {ratio:.2f}")


if __name__ == "__main__":
    main()
