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
    stop_ids = {*tokenizer.stop_ids, *_template_stop_ids(tokenizer, template)}
    settings = SamplingSettings.from_options(
        run.config.decoding, seed=run.config.training.seed, stop_ids=tuple(sorted(stop_ids))
    )
    return TextFormat(tokenizer=tokenizer, template=template, settings=settings)


def load_text_model(run: Run) -> CausalLM:
    """Load the weights of ``--model_name_or_path``, or build ``--model_size`` with random ones, ready to generate.

    Raises:
        WeightError: a weight file cannot be read or does not fit.
    """
    import paddle

    from ..convert.load import load_model

    path = run.config.model.model_name_or_path
    if path is None:
        paddle.seed(run.config.training.seed)
        model = run.family.build_model(run.model_config)
    else:
        model = load_model(run.family, run.model_config, Path(path))
    model.eval()
    return model


def _template_stop_ids(tokenizer: Tokenizer, template: ChatTemplate | None) -> set[int]:
    tokens = () if template is None else template.stop
    return {token_id for token_id in map(tokenizer.token_id, tokens) if token_id is not None}
