"""Weight files of every format behind one face: names and shapes first, then one tensor at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightError
from .fields import CHECKPOINT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np

    from ..registry.facts import Layout
    from .weights import Transfer


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What is known of a tensor before it is read."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """Of what ``read`` returns: a key of ``dtypes.STORED``."""
    file: Path
    storage: str = ""
    """The file's own name of the encoding where that is not ``dtype`` (``Q4_1``)."""


class TensorSource(ABC):
    """One weight file or one set of shards. Opening it has checked every size, so that ``read`` finds its bytes."""

    path: Path
    """The file, or the directory of the shards."""
    layouts: tuple[Layout, ...]
    """Namings that files of this kind come in, the likeliest first."""
    entries: Mapping[str, TensorEntry]

    def adapt(self, steps: Iterable[Transfer]) -> None:  # noqa: B027
        """Be told what will be read; files of integers do not say which way round their matrices are as floats."""

    def check_floats(self) -> None:  # noqa: B027
        """Make sure that the model can be computed from what ``read`` returns.

        Raises:
            WeightError: it cannot.
        """

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Return a tensor as stored (bfloat16 as uint16); quantized ones are expanded to float32.

        Raises:
            WeightError: the bytes are damaged.
        """


def open_tensors(path: Path) -> TensorSource:
    """Open the weights of a model directory, or one weight file.

    Raises:
        WeightError: there are none, or a file is damaged or unsafe; the text names the file.
    """
    from .gguf_tensors import GgufFile
    from .paddle_file import PaddleFile
    from .quantized_source import open_quantized
    from .safetensors_file import SafetensorsFile
    from .shards import open_shards
    from .torch_file import TorchFile

    openers: dict[str, Callable[[Path], TensorSource]] = {
        ".safetensors": SafetensorsFile,
        ".bin": TorchFile,
        ".pdparams": PaddleFile,
        ".gguf": GgufFile,
    }
    file = find_weights(path)
    if file.name.endswith(".index.json"):
        shards = open_shards(file, openers[Path(file.name.removesuffix(".index.json")).suffix])
        return open_quantized(shards, path)
    opener = openers.get(file.suffix, TorchFile if file.suffix in (".pt", ".pth") else None)
    if opener is None:
        raise WeightError(f"{file}: is no weight file that can be read. Known endings: {', '.join(openers)}.")
    return open_quantized(opener(file), path)


STEMS = ("model.safetensors", "pytorch_model.bin", "model_state.pdparams")
"""Weight files of a model directory, best first; each may be cut into shards with an ``.index.json``."""


def find_weights(path: Path) -> Path:
    """Return the weight file, or the index of its shards, that ``path`` is or holds.

    Raises:
        WeightError: there is none, or several GGUF files to choose from.
    """
    if not path.exists():
        raise WeightError(f"{path}: does not exist.")
    if path.is_file():
        return path
    for stem in STEMS:
        for candidate in (path / stem, path / f"{stem}.index.json"):
            if candidate.is_file():
                return candidate
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return ggufs[0]
    if ggufs:
        raise WeightError(f"{path}: holds {len(ggufs)} GGUF files. Name one of them: {ggufs[0]}.")
    parts = sorted(path.glob("model_state.tp*.pdparams")) or sorted(path.glob("model_state.pp*.pdparams"))
    merge = f"Merge it first: llm-run --task merge_shards --model_name_or_path {path} --output_path FOLDER."
    if parts:
        raise WeightError(f"{parts[0]}: is one rank's part of a parallel checkpoint. {merge}")
    if (path / CHECKPOINT).is_file():
        raise WeightError(f"{path}: is a checkpoint of a training run. {merge}")
    raise WeightError(f"{path}: holds no weights. Looked for {', '.join(STEMS)}, their .index.json, and *.gguf.")
