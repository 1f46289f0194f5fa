"""All that a training task puts together before the loop starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..convert import save
from ..parallel.mesh import Mesh
from .objective import NextToken, Objective
from .storage import Storage, temporary_sibling

if TYPE_CHECKING:
    from ..adapters.training import TrainedAdapter
    from ..causal_lm import CausalLM
    from ..config.training import TrainingOptions
    from ..convert.logical import LogicalTensors
    from ..data.chat import ChatTemplate
    from ..data.sample import SampleSource
    from ..data.tokenizer import Tokenizer
    from ..parallel.pipeline.cut import Cut
    from ..registry.facts import ModelConfig
    from ..run import Run
    from .answering import Answering


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Model, data, and how the result is written."""

    run: Run
    """With the model configuration that is trained."""
    model: CausalLM
    """Whole, or what this rank has of it."""
    training: SampleSource
    evaluation: SampleSource | None
    """``None`` where no evaluation is asked for."""
    tokenizer: Tokenizer | None
    """``None`` where token files are trained on and nobody named their tokenizer."""
    template: ChatTemplate | None
    identity: Mapping[str, Any]
    adapter: TrainedAdapter | None = None
    """What is trained instead of the model."""
    answering: Answering | None = None
    """Compares answers with references as a part of evaluation, where that is asked for."""
    objective: Objective = field(default_factory=NextToken)
    mesh: Mesh = field(default_factory=Mesh)
    cut: Cut | None = None
    """Of the model into stages, where there are several."""

    @property
    def options(self) -> TrainingOptions:
        """The training options."""
        return self.run.config.training

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.run.model_config

    @property
    def pad_id(self) -> int:
        """Fills rows on the right; never seen by a real token, so any id will do without a tokenizer."""
        return 0 if self.tokenizer is None else self.tokenizer.pad_id

    @property
    def title(self) -> str:
        """What is trained, for people."""
        return f"{self.run.config.task} · {self.run.config.family}"

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the data, for ``run.json``."""
        found = {"training": self.training.fingerprint}
        return found if self.evaluation is None else found | {"evaluation": self.evaluation.fingerprint}

    def export(self, directory: Path, weights: LogicalTensors | None = None) -> None:
        """Write the model as a Hugging Face directory, or the adapter in PEFT's layout.

        Args:
            directory: appears whole or not at all.
            weights: of the whole model; by default those of ``model``, where this rank has all of them.
        """
        if self.adapter is not None:
            base = self.run.config.model.model_name_or_path or f"random {self.run.config.model.model_size}"
            self.adapter.save(self.model, directory, base=base, weights=weights)
            return
        largest = self.run.config.convert.max_shard_size
        if weights is None:
            save.save_model_directory(
                self.model, self.run.family, self.config, self.tokenizer, directory,
                max_shard_gb=largest, chat_template=self.template,
            )  # fmt: skip
            return
        parts = save.ModelParts(
            family=self.run.family, config=self.config, tensors=weights, tokenizer=self.tokenizer,
            chat_template=self.template, source="a model that several processes trained",
        )  # fmt: skip
        save.write_model_directory(parts, directory, dtype="float32", max_shard_gb=largest)

    def publish(self, storage: Storage, root: Path, weights: LogicalTensors | None = None) -> None:
        """Write the model directory into ``root`` itself, beside the checkpoints.

        All files are written first, in a folder inside ``root``, and moved then, JSON last, so that a kill leaves no
        half-written file under a final name. Weight files of an older result that are not replaced are deleted.

        Raises:
            OSError: the disk is full or cannot be written; what stood there still does.
        """
        folder = temporary_sibling(root / "model")
        try:
            self.export(folder, weights)
            written = sorted(folder.iterdir(), key=lambda path: (path.suffix == ".json", path.name))
            for path in written:
                storage.rename(path, root / path.name)
            for path in root.glob("model*.safetensors*"):
                if path.name not in {file.name for file in written}:
                    path.unlink()
            storage.sync_directory(root)
        finally:
            if folder.exists():
                storage.remove_tree(folder)
