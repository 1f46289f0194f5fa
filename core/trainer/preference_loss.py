"""The losses of preference tuning, from the log-probabilities of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import paddle.nn.functional as F

if TYPE_CHECKING:
    from paddle import Tensor

    from ..config.training import TrainingOptions

REFERENCE_FREE = frozenset({"simpo"})
"""Losses that compare with no other model."""
AVERAGED = frozenset({"ipo", "simpo"})
"""Losses that take the mean of an answer's log-probabilities instead of their sum."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """How far the policy has moved from the reference over a whole batch: mean log-ratios, not below 0."""

    chosen: float = 0.0
    rejected: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceLoss:
    """Which loss, and its constants."""

    kind: str
    beta: float
    label_smoothing: float = 0.0
    """Probability that a record names the wrong answer as the better one."""
    gamma: float = 0.0
    """Margin that SimPO asks for."""

    @classmethod
    def from_options(cls, options: TrainingOptions) -> PreferenceLoss:
        """Read the options."""
        return cls(
            kind=options.dpo_loss, beta=options.dpo_beta, label_smoothing=options.dpo_label_smoothing,
            gamma=options.simpo_gamma,
        )  # fmt: skip

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares with the model that training starts from."""
        return self.kind not in REFERENCE_FREE

    @property
    def is_averaged(self) -> bool:
        """Whether answers count by the mean of their tokens."""
        return self.kind in AVERAGED

    @property
    def needs_baseline(self) -> bool:
        """Whether the loss of a pair depends on the other pairs."""
        return self.kind == "kto_pair"

    def losses(self, ratios_P2: Tensor, baseline: Baseline) -> Tensor:
        """Return the loss of each pair, float32 [P].

        Args:
            ratios_P2: log-probabilities of the chosen and the rejected answer less those of the reference, or as they
                are without one; float32.
            baseline: of the whole batch; only ``kto_pair`` looks at it, and learns nothing from it.

        Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7 (sigmoid); Mitchell 2023, A note on DPO with noisy
        preferences, eq. 3 (label smoothing); Azar et al. 2023, arXiv:2310.12036, eq. 17, on mean log-probabilities
        as TRL does (ipo); Zhao et al. 2023, arXiv:2305.10425, section 2.2 (hinge); Meng et al. 2024,
        arXiv:2405.14734, eq. 6 (simpo); Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8 (kto_pair, each answer
        against the other half's baseline).
        """
        chosen_P, rejected_P = ratios_P2[:, 0], ratios_P2[:, 1]
        margin_P = chosen_P - rejected_P
        if self.kind == "kto_pair":
            good_P = F.sigmoid(self.beta * (chosen_P - baseline.rejected))
            bad_P = F.sigmoid(self.beta * (baseline.chosen - rejected_P))
            return 1 - (good_P + bad_P) / 2
        if self.kind == "ipo":
            return (margin_P - 1 / (2 * self.beta)).square()
        if self.kind == "hinge":
            return F.relu(1 - self.beta * margin_P)
        logits_P = self.beta * margin_P - (self.gamma if self.kind == "simpo" else 0.0)
        smoothing = self.label_smoothing
        return -F.log_sigmoid(logits_P) * (1 - smoothing) - F.log_sigmoid(-logits_P) * smoothing
