"""Rules between options: what a task requires, and which values exclude each other. Imports no Paddle."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import Problem, RefusedError
from ..parallel.membership import parse_address
from ..run import RunConfig
from .groups import LaunchOptions
from .option import DECODING, TRAINING

SHARDING_STAGES = ("stage1", "stage2", "stage3")
MODEL_IS_NEEDED = (*TRAINING, *DECODING)


def check_config(config: RunConfig) -> list[Problem]:
    """Return every problem that can be seen from the options alone, without the model."""
    problems = [*_required(config), *_model(config), *_launch(config)]
    if config.task in TRAINING:
        problems += _training(config)
    if config.task == "sft":
        problems += _lengths(config)
    if config.task in DECODING:
        problems += _decoding(config)
    return problems


def _required(config: RunConfig) -> Iterator[Problem]:
    """Yield the options that the task cannot do without."""
    model, data = config.model, config.data
    needs: dict[str, dict[str, object]] = {
        "pretrain": {"input_dir": data.input_dir},
        "sft": {"dataset_name_or_path": data.dataset_name_or_path},
        "generate": {"data_file": config.decoding.data_file},
        "data": {
            "input_path": data.input_path,
            "output_prefix": data.output_prefix,
            "tokenizer_name_or_path": model.tokenizer_name_or_path,
        },
        "convert": {"model_name_or_path": model.model_name_or_path, "output_path": config.convert.output_path},
    }
    for name, value in needs.get(config.task, {}).items():
        if value is None or value == "":
            yield Problem(
                f"--{name}", "", f"is needed by --task {config.task}", f"See llm-run --task {config.task} --help."
            )


def _model(config: RunConfig) -> Iterator[Problem]:
    model = config.model
    given = model.model_name_or_path, model.model_size
    if config.task in MODEL_IS_NEEDED and given == (None, None):
        remedy = "Give --model_name_or_path, or --family and --model_size for a random model."
        yield Problem("--model_name_or_path", "", f"is needed by --task {config.task}", remedy)
    if None not in given:
        reason = "excludes model_name_or_path: one says that the model is random, the other where it is"
        yield Problem("--model_size", str(model.model_size), reason, "Leave one of them out.")
    if model.continue_training and model.model_name_or_path is None:
        yield Problem("--continue_training", "true", "has no weights to start from", "Give --model_name_or_path.")
    if config.task in ("sft", *DECODING) and model.model_size is not None and model.tokenizer_name_or_path is None:
        reason = "is needed: a model of --model_size has no tokenizer of its own"
        yield Problem("--tokenizer_name_or_path", "", reason, "Give a folder that holds one.")


def _training(config: RunConfig) -> list[Problem]:
    from ..trainer.checks import check_training

    problems = check_training(config.training)
    if config.data.max_length < 1:
        problems.append(Problem("--max_length", str(config.data.max_length), "must be 1 or more"))
    return problems


def _lengths(config: RunConfig) -> Iterator[Problem]:
    data = config.data
    if data.src_length < 1:
        yield Problem("--src_length", str(data.src_length), "must be 1 or more")
    if data.src_length >= data.max_length:
        reason = f"leaves no room for the answer in max_length ({data.max_length})"
        yield Problem("--src_length", str(data.src_length), reason, "Lower it, or raise --max_length.")


def _decoding(config: RunConfig) -> list[Problem]:
    from ..engine.settings import SamplingSettings

    problems = []
    if config.decoding.batch_size < 1:
        problems.append(Problem("--batch_size", str(config.decoding.batch_size), "must be 1 or more"))
    if config.data.src_length < 1:
        problems.append(Problem("--src_length", str(config.data.src_length), "must be 1 or more"))
    try:
        SamplingSettings.from_options(config.decoding, seed=config.training.seed, stop_ids=())
    except RefusedError as error:
        problems += error.problems
    return problems


def _launch(config: RunConfig) -> Iterator[Problem]:
    launch = config.launch
    for name in ("nproc_per_node", "nnodes", "threads"):
        value = getattr(launch, name)
        if value is not None and value < 1:
            yield Problem(f"--{name}", str(value), "must be 1 or more")
    for name in (
        "tensor_parallel_degree",
        "pipeline_parallel_degree",
        "sep_parallel_degree",
        "sharding_parallel_degree",
    ):
        value = getattr(launch, name)
        if value != -1 and value < 1:
            yield Problem(f"--{name}", str(value), "must be 1 or more", "-1 leaves it to llm-run.")
    stages = launch.sharding.replace(",", " ").split()
    if stages and (len(stages) > 1 or stages[0] not in SHARDING_STAGES):
        yield Problem(
            "--sharding", f"'{launch.sharding}'", "is not one stage", f"Use one of {', '.join(SHARDING_STAGES)}."
        )
    if launch.node_rank not in range(launch.nnodes):
        yield Problem("--node_rank", str(launch.node_rank), f"is not below nnodes ({launch.nnodes})")
    yield from _machines(launch)
    if launch.devices is not None and launch.device == "cpu":
        yield Problem("--devices", launch.devices, "names GPUs, but device is cpu", "Use --nproc_per_node on a CPU.")


def _machines(launch: LaunchOptions) -> Iterator[Problem]:
    """Yield what is wrong with the numbers of processes and machines."""
    if launch.virtual_pp_degree < 1:
        yield Problem("--virtual_pp_degree", str(launch.virtual_pp_degree), "must be 1 or more")
    if launch.dist_timeout < 1:
        yield Problem("--dist_timeout", f"{launch.dist_timeout:g}", "must be 1 second or more")
    if launch.nnodes > 1 and not launch.master:
        yield Problem("--master", "", "is needed where nnodes is above 1", "Give host:port of the first machine.")
    if launch.master and launch.nnodes <= 1:
        yield Problem("--master", launch.master, "has no effect on one machine", "Give --nnodes, or leave it out.")
    elif launch.master and parse_address(launch.master) is None:
        yield Problem("--master", f"'{launch.master}'", "is not host:port", "Name a port of the first machine.")
    gpus = launch.devices.split(",") if launch.devices else []
    if launch.nproc_per_node > 1 and gpus and launch.nproc_per_node != len(gpus):
        reason = f"does not fit the {len(gpus)} GPUs of devices, which get one process each"
        yield Problem("--nproc_per_node", str(launch.nproc_per_node), reason, "Leave it out.")
