"""One PaddleNLP model in a golden file: its config.json, a recipe of its weights, token ids and logits."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from drawn import draw

SEED = 7


def describe(
    name: str, model: Any, tied: Mapping[str, str], forward: Callable[[Any], Any] | None = None
) -> dict[str, np.ndarray]:
    """Give a model drawn weights, run it, and return what the golden file keeps of it, by names that begin with
    ``name``.

    Args:
        name: of the case.
        model: any PaddleNLP causal language model.
        tied: names of parameters that get the values of another one.
        forward: from ids to logits; default: the model itself.
    """
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items() if key not in tied}
    weights = draw(shapes, SEED)
    weights |= {key: weights[original] for key, original in tied.items()}
    model.set_state_dict({key: paddle.to_tensor(array) for key, array in weights.items()})
    model.eval()
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory, safe_serialization=False)
        fields = json.loads((Path(directory) / "config.json").read_text())
    ids = np.random.default_rng(SEED).integers(3, model.config.vocab_size, [2, 24])
    with paddle.no_grad():
        logits = (forward or model)(paddle.to_tensor(ids))
    logits = logits[0] if isinstance(logits, tuple) else logits
    about = {"fields": fields, "shapes": shapes, "tied": dict(tied), "seed": SEED}
    return {f"{name}_about": np.array(json.dumps(about)), f"{name}_ids": ids, f"{name}_logits": logits.numpy()}
