"""The training tasks: what is opened, in which order, before the loop starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.coded_base import build_base
from ..adapters.off import adapters_off
from ..adapters.training import add_adapter, trains_adapter
from ..convert.tokenizer import find_chat_template, load_tokenizer
from ..data.instruction import open_instruction_data
from ..data.pretraining import open_pretraining_data
from ..data.preview import preview
from ..errors import DataError, Problem, RefusedError
from ..launch.world import find_world
from ..parallel.degrees import fill_plan
from ..parallel.join import mesh_of
from ..parallel.model_part import build_part
from ..parallel.pipeline.passes import Pipeline
from ..parallel.sharding import hold_frozen
from ..parallel.tensor.model import model_parts
from .answering import Answering
from .checks import check_training
from .evaluate import evaluate
from .identity import fingerprint_weights, global_batch_size, identity
from .job import Job
from .loop import train
from .metrics import MetricsFile
from .objective import NextToken
from .preference import Preference, frozen
from .preference_loss import PreferenceLoss
from .randomness import seed_all
from .resume import find_checkpoint
from .workspace import Workspace

if TYPE_CHECKING:
    from ..data.chat import ChatTemplate
    from ..data.sample import SampleSource
    from ..data.tokenizer import Tokenizer
    from ..parallel.mesh import Mesh
    from ..parallel.model_part import ModelPart
    from ..registry.facts import ModelConfig
    from ..run import Run
    from .objective import Objective

_log = logging.getLogger("llm_run.trainer")

VOCABULARY_MULTIPLE = 128
"""A new model's vocabulary is rounded up to this, as in the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Materials:
    """Data of a task, opened, and what they are read with."""

    run: Run
    training: SampleSource | None
    evaluation: SampleSource | None
    tokenizer: Tokenizer | None
    template: ChatTemplate | None = None
    answering: Answering | None = None


def run_pretrain(run: Run) -> int:
    """Train on token files: from random weights, or with ``continue_training`` from those of the model directory."""
    return _run(run, _open_pretraining, from_weights=run.config.model.continue_training)


def run_sft(run: Run) -> int:
    """Fine-tune on instruction data, from the weights of the model directory, or random ones of ``model_size``."""
    return _run(run, _open_instruction, from_weights=run.config.model.model_name_or_path is not None)


def run_lora(run: Run) -> int:
    """Fine-tune an adapter on instruction data; the model itself is left as it is."""
    return _run(run, _open_instruction, from_weights=run.config.model.model_name_or_path is not None)


def run_prefix_tuning(run: Run) -> int:
    """Train keys and values that stand before all others; the model itself is left as it is."""
    return _run(run, _open_instruction, from_weights=run.config.model.model_name_or_path is not None)


def run_dpo(run: Run) -> int:
    """Tune on pairs of answers, against the model that training starts from."""
    return _run(run, _open_instruction, from_weights=run.config.model.model_name_or_path is not None)


def _run(run: Run, open_data: Callable[[Run], Materials], *, from_weights: bool) -> int:
    options = run.config.training
    problems = check_training(options)
    source = run.config.model.model_name_or_path
    if problems or options.output_dir is None:
        raise RefusedError(*problems)
    weights = Path(source) if from_weights and source else None
    membership = find_world(run.config.launch).membership
    is_main = membership is None or membership.rank == 0
    if run.config.data.preview_data:
        return _preview(open_data(run), run.config.data.preview_data) if is_main else 0
    with Workspace(Path(options.output_dir), is_main=is_main) as workspace:
        # Before the ranks meet: nobody waits for another one's index building.
        materials = _check_data(open_data(run))
        with mesh_of(run.config.launch) as mesh:
            if not options.do_train:
                part = _build(materials.run, weights, mesh, shares_rows=False)
                return _evaluate_only(materials, workspace, part, mesh)
            return _train(materials, workspace, weights, mesh)


def _preview(materials: Materials, count: int) -> int:
    """Print the first samples of training."""
    if materials.training is None:
        raise RefusedError(Problem("--preview_data", str(count), "has no training data to show"))
    for line in preview(materials.training, count, materials.tokenizer):
        print(line)
    return 0


def _train(materials: Materials, workspace: Workspace, weights: Path | None, mesh: Mesh) -> int:
    assert materials.training is not None
    ours = identity(
        materials.run,
        data=materials.training.fingerprint,
        weights=fingerprint_weights(weights) if weights else "random",
        data_world=mesh.data_world,
    )
    checkpoint = find_checkpoint(workspace, materials.run.config.training, ours, mesh)
    # A checkpoint brings what was trained: of the rest, an adapter's model needs all, and any other one nothing.
    trains_model = not trains_adapter(materials.run)
    brings_all = checkpoint is not None and trains_model
    part = _build(materials.run, None if brings_all else weights, mesh)
    job = Job(
        run=materials.run,
        model=part.model,
        cut=part.cut,
        adapter=None if trains_model else add_adapter(materials.run, part.model),
        training=materials.training,
        evaluation=materials.evaluation,
        tokenizer=materials.tokenizer,
        template=materials.template,
        answering=materials.answering,
        objective=_objective(materials.run, weights, mesh),
        identity=ours,
        mesh=mesh,
    )
    return train(job, workspace, checkpoint)


def _build(run: Run, weights: Path | None, mesh: Mesh, *, shares_rows: bool = True) -> ModelPart:
    seed_all(run.config.training.seed)
    if trains_adapter(run):
        return build_base(run, mesh, weights, shares_rows=shares_rows)
    return build_part(run.family, run.model_config, mesh, weights, shares_rows=shares_rows)


def _objective(run: Run, weights: Path | None, mesh: Mesh) -> Objective:
    """Return what the task minimizes: where it compares with a model, one of its own or the one under an adapter."""
    if run.config.task != "dpo":
        return NextToken()
    loss = PreferenceLoss.from_options(run.config.training)
    if not loss.needs_reference:
        return Preference(loss, None)
    if trains_adapter(run):
        return Preference(loss, adapters_off)
    copy = _build(run, weights, mesh).model
    return Preference(loss, frozen(copy, hold_frozen(copy, mesh, model_parts(copy))))


def _open_pretraining(run: Run) -> Materials:
    tokenizer = _find_tokenizer(run)
    if not run.config.model.continue_training:
        run = replace(run, model_config=_grown(run, tokenizer))
    options = run.config.training
    data_world = fill_plan(run.config.launch, find_world(run.config.launch).size).data_world
    num_samples = max(1, options.max_steps * global_batch_size(options, data_world))
    training, evaluation = open_pretraining_data(run, num_samples)
    return Materials(run=run, training=training, evaluation=evaluation, tokenizer=tokenizer)


def _open_instruction(run: Run) -> Materials:
    tokenizer = _open_tokenizer(run)
    if tokenizer is None:
        raise RefusedError(Problem("--tokenizer_name_or_path", "", "is needed", "Name a folder with a tokenizer."))
    if run.config.model.model_name_or_path is None:
        run = replace(run, model_config=_grown(run, tokenizer))
    source, choice = run.config.model.model_name_or_path, run.config.model.chat_template
    template = find_chat_template(run.family, run.model_config, Path(source) if source else None, choice)
    training, evaluation = open_instruction_data(run, tokenizer, template)
    answers = Answering(run, tokenizer, template) if run.config.evaluation.eval_with_do_generation else None
    return Materials(
        run=run, training=training, evaluation=evaluation, tokenizer=tokenizer, template=template, answering=answers
    )  # fmt: skip


def _find_tokenizer(run: Run) -> Tokenizer | None:
    """Load the tokenizer that was named; without a name the model's own, which tokens can be trained on without."""
    if run.config.model.tokenizer_name_or_path is not None:
        return _open_tokenizer(run)
    try:
        return _open_tokenizer(run)
    except DataError as error:
        _log.warning("%s The trained model gets no tokenizer.", error)
        return None


def _open_tokenizer(run: Run) -> Tokenizer | None:
    source = run.config.model.tokenizer_name_or_path or run.config.model.model_name_or_path
    return None if source is None else load_tokenizer(run.family, run.model_config, Path(source))


def _grown(run: Run, tokenizer: Tokenizer | None) -> ModelConfig:
    """Return the shape of a new model, with room for the tokenizer's ids and the rows' length."""
    config = run.model_config
    length = run.config.data.max_length
    if run.config.task == "prefix_tuning":
        length += run.config.adapter.num_prefix_tokens
    vocab_size, max_positions = config.vocab_size, max(config.max_positions, length)
    if tokenizer is not None:
        needed = -(-tokenizer.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        vocab_size = max(vocab_size, needed)
    if (vocab_size, max_positions) != (config.vocab_size, config.max_positions):
        _log.info("the new model gets vocab_size %d and max_positions %d", vocab_size, max_positions)
    grown = replace(config, vocab_size=vocab_size, max_positions=max_positions)
    return grown if tokenizer is None else grown.with_tokenizer(tokenizer)


def _check_data(materials: Materials) -> Materials:
    """Make sure that what is asked for has data, and leave out evaluation data that nobody asked for.

    Raises:
        RefusedError: there is nothing to train on, or to evaluate on.
    """
    options = materials.run.config.training
    wants_evaluation = options.do_eval or options.evaluation_strategy != "no"
    if options.do_train and materials.training is None:
        raise RefusedError(Problem("--do_train", "true", "has no training data"))
    if wants_evaluation and materials.evaluation is None:
        asked = ("--do_eval", "true") if options.do_eval else ("--evaluation_strategy", options.evaluation_strategy)
        raise RefusedError(Problem(*asked, "has no evaluation data"))
    return materials if wants_evaluation else replace(materials, evaluation=None)


def _evaluate_only(materials: Materials, workspace: Workspace, part: ModelPart, mesh: Mesh) -> int:
    """Evaluate the model as it is; the row in ``metrics.jsonl`` has step 0."""
    assert materials.evaluation is not None
    options = materials.run.config.training
    pipeline = Pipeline(part.model, part.cut, mesh, seed=options.seed) if part.cut else None
    evaluation = evaluate(
        part.model, materials.evaluation, batch_size=options.per_device_eval_batch_size,
        pad_id=materials.tokenizer.pad_id if materials.tokenizer else 0, max_batches=options.max_evaluate_steps,
        mesh=mesh, pipeline=pipeline,
    )  # fmt: skip
    assert evaluation is not None
    answers = {} if materials.answering is None else materials.answering.figures(part.model, mesh, 0)
    if not mesh.is_main:
        return 0
    metrics = MetricsFile(workspace.root, keep_through=sys.maxsize)
    metrics.write({"step": 0, **evaluation.metrics(), **(answers or {})})
    metrics.close()
    _log.info("%s%s", evaluation, "".join(f"  {name} {value:.4f}" for name, value in (answers or {}).items()))
    return 0
