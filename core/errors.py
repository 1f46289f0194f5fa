"""What the user is told: errors with an exit status, and problems with a remedy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request, in the user's words.

    Printed as ``<key>: <value> <reason>. <remedy>``.
    """

    key: str
    """The option, key, file or tensor, as the user wrote it (``--family``, ``config.json: rope_theta``)."""
    value: str
    """The value as the user gave it; empty where the key alone says it."""
    reason: str
    """What is wrong, without a full stop."""
    remedy: str = ""
    """What to do: the nearest or allowed values."""

    def __str__(self) -> str:
        said = f"{self.key}: {self.value} {self.reason}" if self.value else f"{self.key}: {self.reason}"
        return f"{said}. {self.remedy}".rstrip()


class LlmRunError(Exception):
    """An error that is the user's to mend: printed without a traceback, with ``exit_status``."""

    exit_status = 1


class RefusedError(LlmRunError):
    """The request cannot be run as it stands; carries every problem found, not the first one."""

    exit_status = 2

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class PluginError(LlmRunError):
    """A family plugin is missing, broken, or breaks its contract; the text names the package and the cause."""

    exit_status = 2


class DataError(LlmRunError):
    """Input data cannot be read; the text names the file, and the line where there is one."""


class WeightError(LlmRunError):
    """A weight file cannot be read or does not fit the model; the text names the file and the tensor."""


class CheckpointError(LlmRunError):
    """A checkpoint is missing, damaged, or belongs to another run; the text names the directory and the cause."""


class QuantizationError(LlmRunError):
    """A quantized model is worse than is allowed; the text says by how much, and what to do."""


class TrainingError(LlmRunError):
    """Training cannot go on (losses are not finite, the disk is full); the text says what was saved."""


class DistributedError(LlmRunError):
    """The ranks cannot go on together: one is gone, silent, or somewhere else; the text names it."""

    def __init__(self, text: str, *, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(text)
        self.ranks = ranks
        """The ranks whose fault it is, as far as this one can tell."""
