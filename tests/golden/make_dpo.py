"""Make dpo.npz: preference losses, their gradients, and log-probabilities of answers, computed by TRL's own functions.

TRL's trainers need packages that are not installed here, and their formulas do not: the functions are taken out of the
sources. `kto_pair` was last in 0.8.6, `simpo` came with 0.9.6:

    pip download --no-deps trl==0.8.6 trl==0.9.6 && (unzip each into a folder)
    python tests/golden/make_dpo.py FOLDER_OF_0.8.6 FOLDER_OF_0.9.6
"""

from __future__ import annotations

import ast
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

OUT = Path(__file__).with_name("dpo.npz")
CASES = {
    "sigmoid": {"beta": 0.1}, "sigmoid_smoothed": {"beta": 0.3, "label_smoothing": 0.2}, "hinge": {"beta": 0.5},
    "ipo": {"beta": 0.2}, "kto_pair": {"beta": 0.1}, "simpo": {"beta": 2.0, "simpo_gamma": 0.5},
    "simpo_smoothed": {"beta": 2.0, "simpo_gamma": 1.4, "label_smoothing": 0.1},
}  # fmt: skip


def taken(file: Path, name: str) -> Any:
    """Return one method of the class in a file, as a function."""
    tree = ast.parse(file.read_text())
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    found.decorator_list = []
    names: dict[str, Any] = {**vars(typing), "torch": torch, "F": F}
    exec(compile(ast.Module([found], []), str(file), "exec"), names)
    return names[name]


def main(older: Path, newer: Path) -> None:
    random = np.random.default_rng(0)
    policy = (random.normal(size=[6, 2]) * 4 - 20).astype(np.float32)
    reference = (policy + random.normal(size=[6, 2]) * 3).astype(np.float32)
    logits = random.normal(size=[3, 7, 11]).astype(np.float32)
    labels = random.integers(0, 11, [3, 7])
    labels[:, :3] = -100
    labels[1, 5:] = -100
    found = {"policy": policy, "reference": reference, "logits": logits, "labels": labels}
    dpo_loss = taken(older / "trl" / "trainer" / "dpo_trainer.py", "dpo_loss")
    cpo_loss = taken(newer / "trl" / "trainer" / "cpo_trainer.py", "cpo_loss")
    for case, constants in CASES.items():
        kind = case.removesuffix("_smoothed")
        trainer = SimpleNamespace(
            **{"label_smoothing": 0.0, "loss_type": kind, "reference_free": False, **constants},
            accelerator=SimpleNamespace(device="cpu"),
        )
        chosen, rejected = (torch.tensor(policy[:, side], requires_grad=True) for side in (0, 1))
        others = () if kind == "simpo" else (torch.tensor(reference[:, 0]), torch.tensor(reference[:, 1]))
        losses, *rewards = (cpo_loss if kind == "simpo" else dpo_loss)(trainer, chosen, rejected, *others)
        losses.mean().backward()
        found |= {
            f"{case}_losses": losses.detach().numpy(),
            f"{case}_rewards": torch.stack(rewards, 1).detach().numpy(),
            f"{case}_gradient": torch.stack([chosen.grad, rejected.grad], 1).numpy(),
            f"{case}_about": np.array([trainer.beta, trainer.label_smoothing, constants.get("simpo_gamma", 0.0)]),
        }
    get_batch_logps = taken(older / "trl" / "trainer" / "dpo_trainer.py", "get_batch_logps")
    for name, average in (("sums", False), ("means", True)):
        # TRL shifts here; ours are shifted already.
        shifted = np.concatenate([np.full([3, 1], -100), labels], axis=1)
        padded = np.concatenate([logits, np.zeros([3, 1, 11], np.float32)], axis=1)
        arguments = torch.tensor(padded), torch.tensor(shifted)
        found[name] = get_batch_logps(*arguments, average_log_prob=average).numpy()
    np.savez_compressed(OUT, **found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
