"""NEFTune: uniform noise on the embedded tokens while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn

from ..errors import Problem, RefusedError
from ..parallel.sep.model import own_tokens
from ..parallel.tensor.layers import VocabularyEmbedding

if TYPE_CHECKING:
    from paddle import Tensor

    from ..causal_lm import CausalLM
    from ..data.sample import Batch
    from ..registry.family import Family
    from .job import Job

STREAM = 0x4E454654
"""Sets the noise apart from other random numbers of the same seed."""


DEFAULT_ALPHA = 5.0
"""``neftune_noise_alpha`` where only ``neftune`` is given, as in the seed."""


class EmbeddingNoise:
    """Adds noise to what the token embedding returns, in training mode only.

    A token of a record with L tokens (of a packed row, each record for itself) gets a vector of d numbers from
    [-1, 1), times ``alpha / sqrt(L d)``. The numbers of a row follow from the seed and the row's global position, so
    that they do not depend on how a global batch is cut, on padding, or on where a run was resumed.

    Source: Jain et al. 2023, arXiv:2310.05914, algorithm 1.
    """

    def __init__(self, model: CausalLM, family: Family, *, alpha: float, seed: int) -> None:
        """Hook into the model's token embedding.

        Raises:
            RefusedError: the family does not say which layer that is.
        """
        self.alpha, self._model, self._seed = alpha, model, seed
        self._noise_BSD: Tensor | None = None
        self._drawn_for: tuple[Batch, int] | None = None
        _token_embedding(model, family, alpha).register_forward_post_hook(self._add)

    def expect(self, batch: Batch, position: int) -> None:
        """Say which rows come next, and the global position of the first one."""
        self._drawn_for, self._noise_BSD = (batch, position), None

    def _add(self, layer: nn.Layer, inputs: Any, embedded_BSD: Tensor) -> Tensor:
        if not layer.training or self._drawn_for is None:
            return embedded_BSD
        if self._noise_BSD is None:
            batch, position = self._drawn_for
            noise = draw_noise(batch.segments_BS, embedded_BSD.shape[-1], self.alpha, self._seed, position)
            # Rows may have been made longer since, to be cut evenly among ranks.
            own = own_tokens(self._model, paddle.to_tensor(noise), fill=0.0)
            missing = embedded_BSD.shape[1] - own.shape[1]
            self._noise_BSD = nn.functional.pad(own, [0, 0, 0, missing, 0, 0]) if missing else own
        return embedded_BSD + self._noise_BSD.astype(embedded_BSD.dtype)


def noise_of(job: Job) -> EmbeddingNoise | None:
    """Return the noise that a run's options ask for.

    Raises:
        RefusedError: the family does not say which layer embeds the tokens.
    """
    options = job.options
    alpha = options.neftune_noise_alpha
    if alpha is None:
        alpha = DEFAULT_ALPHA if options.neftune else 0.0
    if options.neftune is False or alpha == 0.0:
        return None
    return EmbeddingNoise(job.model, job.run.family, alpha=alpha, seed=options.seed)


def draw_noise(segments_BS: np.ndarray, size: int, alpha: float, seed: int, position: int) -> np.ndarray:
    """Return the noise of padded rows, float32 [B, S, size]; that of padding is 0.

    Args:
        segments_BS: 0 for padding on the right, k > 0 for the k-th record of a row.
        size: of an embedded token.
        alpha: strength.
        seed: of the run.
        position: global position of the first row.
    """
    noise_BSD = np.zeros((*segments_BS.shape, size), dtype=np.float32)
    for row, segments_S in enumerate(segments_BS):
        lengths = np.bincount(segments_S)
        real = int(lengths[1:].sum())
        generator = np.random.Generator(np.random.PCG64([seed, position + row, STREAM]))
        scales_S = alpha / np.sqrt(lengths[segments_S[:real]] * size)
        numbers = generator.random((real, size), dtype=np.float32) * 2 - 1
        noise_BSD[row, :real] = numbers * scales_S[:, None].astype(np.float32)
    return noise_BSD


def _token_embedding(model: CausalLM, family: Family, alpha: float) -> nn.Layer:
    rules = family.sharding_map(model.config) or ()
    layers = dict(model.named_sublayers())
    for rule in rules:
        layer = layers.get(rule.pattern.removesuffix(".weight"))
        if rule.kind == "vocab" and isinstance(layer, nn.Embedding | VocabularyEmbedding):
            return layer
    reason = f"cannot be added: family {family.card.name} does not say which layer embeds the tokens"
    raise RefusedError(Problem("--neftune_noise_alpha", f"{alpha:g}", reason, "Leave it out."))
