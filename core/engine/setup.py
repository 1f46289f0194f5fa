"""Model, tokenizer, chat template and settings of one run, for the tasks that make text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Problem, RefusedError
from .settings import SamplingSettings

if TYPE_CHECKING:
    from ..causal_lm import CausalLM
    from ..data.chat import ChatTemplate
    from ..data.tokenizer import Tokenizer
    from ..parallel.mesh import Mesh
    from ..run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFormat:
    """How text becomes tokens and tokens become text; loaded in a moment, before the model."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    settings: SamplingSettings


def load_text_format(run: Run) -> TextFormat:
    """Load tokenizer and chat template, and read the decoding options.

    Raises:
        RefusedError: an option is out of its range, or the tokenizer has more tokens than the model.
        DataError: a file of the tokenizer or of the template is missing or malformed.
    """
    from ..convert.tokenizer import find_chat_template, load_tokenizer

    options = run.config.model
    place = options.tokenizer_name_or_path or options.model_name_or_path
    assert place is not None, "core/config/check.py asks for one of them"
    tokenizer = load_tokenizer(run.family, run.model_config, Path(place))
    if tokenizer.vocab_size > run.model_config.vocab_size:
        raise RefusedError(
            Problem(
                "--tokenizer_name_or_path",
                place,
                f"has {tokenizer.vocab_size} tokens, more than the {run.model_config.vocab_size} of the model",
                "Give the tokenizer that the model was trained with.",
            )
        )
    model_path = options.model_name_or_path or place
    template = find_chat_template(run.family, run.model_config, Path(model_path), options.chat_template)
    settings = SamplingSettings.from_options(
        run.config.decoding, seed=run.config.training.seed, stop_ids=stop_ids(tokenizer, template)
    )
    return TextFormat(tokenizer=tokenizer, template=template, settings=settings)


def load_text_model(run: Run, mesh: Mesh | None = None) -> CausalLM:
    """Load the weights of ``--model_name_or_path``, or build ``--model_size`` with random ones, ready to generate.

    Of several tensor-parallel ranks each loads its part.

    An adapter (``--lora_path``) is merged, so that it costs no time later; a prefix is set before all texts. A model
    that is quantized computes with its integers; another one is rounded where ``--quant_type`` asks for it, and
    activations where ``--activations_int8`` does.

    Raises:
        WeightError: a weight file cannot be read or does not fit.
        RefusedError: the model cannot be quantized as it is asked for.
    """
    import paddle

    from ..adapters.files import open_adapter, put_adapter
    from ..adapters.lora import merge_in_place
    from ..adapters.prefix_files import put_prefix
    from ..convert.load import load_model
    from ..quant.start import round_activations, round_at_start

    path = run.config.model.model_name_or_path
    paddle.seed(run.config.training.seed)
    if mesh is not None and not mesh.is_alone:
        from ..parallel.model_part import build_part

        model = build_part(run.family, run.model_config, mesh, None if path is None else Path(path)).model
    elif path is None:
        model = run.family.build_model(run.model_config)
    else:
        # An adapter is merged into floats.
        is_merged = run.config.adapter.lora_path is not None
        model = load_model(run.family, run.model_config, Path(path), keep_integers=not is_merged)
    if run.config.adapter.lora_path is not None:
        adapter = open_adapter(run.family, run.model_config, Path(run.config.adapter.lora_path))
        merge_in_place(put_adapter(model, adapter))
    round_at_start(model, run)
    if run.config.quant.activations_int8:
        round_activations(model)
    if run.config.adapter.prefix_path is not None:
        put_prefix(model, Path(run.config.adapter.prefix_path))
    model.eval()
    return model


def stop_ids(tokenizer: Tokenizer, template: ChatTemplate | None) -> tuple[int, ...]:
    """Return the ids that end an answer: the tokenizer's, and those of the template's stop tokens."""
    named = () if template is None else template.stop
    numbers = (number for number in map(tokenizer.token_id, named) if number is not None)
    return tuple(sorted({*tokenizer.stop_ids, *numbers}))
