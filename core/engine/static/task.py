"""``--task export``: a model in, one graph with its weights out, compared with the model beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.progress import progress
from ...errors import Problem, RefusedError, WeightError
from .manifest import GRAPH_SUFFIX, KEY, WEIGHTS_SUFFIX, Manifest

if TYPE_CHECKING:
    from ...causal_lm import CausalLM
    from ...convert.save import ModelParts
    from ...run import Run
    from ..runner import BatchModel
    from ..setup import TextFormat

BOUND = 1e-5
"""Largest difference of a logit over the largest logit."""
PROMPT_TOKENS, STEPS = (5, 12, 9), 4
"""What is compared: prompts of unequal length in one batch, and tokens that follow them."""


def run(run: Run) -> int:
    """Export, compare logits, and say where the result is.

    The model is in memory twice while the two are compared.

    Raises:
        RefusedError: the output folder is in use.
        WeightError: weights are damaged or do not fit; or the logits of the graph are too far from those of the
            model. Nothing is left then.
        DataError: a file of an adapter, of a prefix or of the tokenizer is missing or malformed.
    """
    from ...convert.publish import staged_directory
    from ...convert.save import write_companions, write_report
    from ..setup import load_text_format, load_text_model
    from .graph import write_graph

    source, target = run.config.model.model_name_or_path, run.config.convert.output_path
    assert source and target, "core/config/check.py asks for them"
    place = Path(target)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RefusedError(Problem("--output_path", target, "is not an empty folder", "Give a new one."))
    text = load_text_format(run)
    with progress("exporting", 4, shown=not run.config.training.disable_tqdm) as advance, staged_directory(place) as to:
        model = load_text_model(run)
        advance(1)
        parts = _parts(run, model, text, source)
        write_companions(parts, to, dtype="float32")
        graph = run.config.convert.model_prefix
        inputs = write_graph(model, to / graph)
        advance(1)
        taken = 0 if model.prefix is None else model.prefix.num_positions
        manifest = Manifest(to, graph, inputs, taken, {})
        difference = compare(model, manifest)
        advance(1)
        peer = "its own operators" if rounds_activations(model) else "the model"
        write_report(parts, to, {KEY: _facts(run, manifest, difference) | {"compared_with": peer}})
        advance(1)
    size = sum((place / f"{graph}{suffix}").stat().st_size for suffix in (GRAPH_SUFFIX, WEIGHTS_SUFFIX))
    print(
        f"{target}: {graph}{GRAPH_SUFFIX} and {graph}{WEIGHTS_SUFFIX}, {size / 1e9:.2f} GB; the largest logit "
        f"difference to {peer} is {difference:.2g} of the largest logit (at most {BOUND:g} is accepted). "
        "See report.json."
    )
    return 0


def compare(model: CausalLM, manifest: Manifest) -> float:
    """Return the largest logit difference of a graph to its model, over the largest logit.

    Prompts of unequal length are read in one batch, and random tokens follow them one by one. Where the last digit of
    a sum decides how an activation is rounded, the graph is compared with its own operators, computed one by one.

    Raises:
        WeightError: it is above ``BOUND``.
    """
    from ..runner import BatchRunner
    from .exported import ExportedModel, UndrawnModel

    exported = ExportedModel(manifest, model.config)
    random = np.random.default_rng(0)
    vocab_size = model.config.vocab_size
    prompts = [random.integers(0, vocab_size, length).tolist() for length in PROMPT_TOKENS]
    steps = random.integers(0, vocab_size, [STEPS, len(prompts)]).tolist()

    def logits(one: CausalLM | BatchModel) -> np.ndarray:
        runner = BatchRunner(one, prompts)
        return np.stack([runner.prefill().numpy(), *(runner.step(tokens).numpy() for tokens in steps)])

    found = logits(exported)
    expected = logits(UndrawnModel(model) if rounds_activations(model) else model)
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not difference <= BOUND:
        said = f"{difference:.2g} of the largest logit, and at most {BOUND:g} is accepted"
        raise WeightError(
            f"{manifest.graph_path().name}: logits of the graph differ from those of the model by {said}. "
            "Nothing is kept."
        )
    return difference


def rounds_activations(model: CausalLM) -> bool:
    """Whether a model is W8A8: two ways of computing it that differ in the last digit differ in some roundings."""
    from ...quant.layer import quantized_layers

    return any(layer.inputs is not None for layer in quantized_layers(model).values())


def _parts(run: Run, model: CausalLM, text: TextFormat, source: str) -> ModelParts:
    from ...convert.logical import ModelTensors
    from ...convert.save import ModelParts

    return ModelParts(
        family=run.family, config=run.model_config, tensors=ModelTensors(model), tokenizer=text.tokenizer,
        chat_template=text.template, source=source,
    )  # fmt: skip


def _facts(run: Run, manifest: Manifest, difference: float) -> dict[str, Any]:
    from .graph import OUTPUTS

    adapter, quant = run.config.adapter, run.config.quant
    return {
        "graph": manifest.graph, "inputs": list(manifest.inputs), "outputs": list(OUTPUTS),
        "prefix_positions": manifest.prefix_positions, "merged_adapter": adapter.lora_path,
        "prefix": adapter.prefix_path, "quant_type": quant.quant_type, "max_logit_difference": difference,
        "bound": BOUND,
    }  # fmt: skip
