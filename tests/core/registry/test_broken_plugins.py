"""A plugin that breaks its contract is reported with its package and the cause, and disturbs nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..conftest import Site

FUNCTION = "def llm_run_capabilities(config):"
BROKEN = {
    "import error": (
        "import no_such_module",
        "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "syntax error": ("def (", "cannot be imported: SyntaxError"),
    "exit at import": ("raise SystemExit(0)", "cannot be imported: SystemExit: 0"),
    "odd exception": ("class Odd(BaseException): pass\nraise Odd('x')", "cannot be imported: Odd: x"),
    "empty module": ("", "lacks the required hook llm_run_family"),
    "card of a wrong type": (
        "def llm_run_family():\n    return {'name': 'quokka'}",
        "returns dict from llm_run_family, not FamilyCard",
    ),
    "card that raises": (
        "def llm_run_family():\n    raise ValueError('no card today')",
        "fails in llm_run_family: ValueError: no card today. This llm-run has plugin API 1.0.",
    ),
}
"""Source of a plugin, and what is said about it."""

CHANGED = {
    "missing hook": ("@hookimpl\ndef llm_run_tokenizer", "def load_it", "lacks the required hook llm_run_tokenizer."),
    "unmarked hook": (
        "@hookimpl\ndef llm_run_tokenizer",
        "def llm_run_tokenizer",
        "llm_run_tokenizer: defined, but not marked with @hookimpl",
    ),
    "wrong signature": (FUNCTION, "def llm_run_capabilities(config, task):", "Argument(s) {'task'} are declared"),
    "unknown hook": (
        "@hookimpl\ndef llm_run_weight_map",
        "@hookimpl\ndef llm_run_sharding_maps(config):\n    return ()\n\n\n@hookimpl\ndef llm_run_weight_map",
        "unknown hook 'llm_run_sharding_maps' in plugin",
    ),
    "another name": (
        'NAME, API = "quokka"',
        'NAME, API = "wombat"',
        "calls itself 'wombat', but its entry point is 'quokka'",
    ),
    "no tiny size": ('sizes={"tiny": TINY}', 'sizes={"big": TINY}', "sizes lacks 'tiny'"),
    "sizes of another class": ('sizes={"tiny": TINY}', 'sizes={"tiny": 3}', "sizes holds something else than Config"),
    "architectures in a list": ("architectures=()", "architectures=[]", "architectures is not a tuple of strings"),
    "older major version": (
        ", (1, 0)",
        ", (0, 9)",
        "written for plugin API 0.9, and this llm-run has 1.0. Upgrade the plugin.",
    ),
    "newer major version": (
        ", (1, 0)",
        ", (2, 0)",
        "written for plugin API 2.0, and this llm-run has 1.0. Upgrade llm-run.",
    ),
    "version of a wrong type": (", (1, 0)", ", '1.0'", "gives the API version '1.0', not two numbers"),
}
"""What is replaced in a good plugin, by what, and what is said about it."""


def broken_source(case: str, good: str) -> tuple[str, str]:
    """Return the source of a broken plugin and the text that its report must hold."""
    if case in BROKEN:
        return BROKEN[case]
    old, new, said = CHANGED[case]
    assert old in good
    return good.replace(old, new), said


CASES = {name.replace(" ", "-"): name for name in [*BROKEN, *CHANGED]}
"""Family name of each broken plugin."""


@pytest.fixture(scope="module")
def crowd(crowded_site: Site, plugin_source: str) -> Site:
    """All broken plugins at once, and one good outsider."""
    for family, case in CASES.items():
        source, _ = broken_source(case, plugin_source)
        if case != "another name":
            source = source.replace('"quokka"', f'"{family}"')
        crowded_site.install(f"pack-{family}", family, source, version="0.3.1")
    crowded_site.install("llm-run-good", "good")
    return crowded_site


@pytest.fixture(scope="module")
def records(crowd: Site) -> dict[str, dict[str, Any]]:
    """What ``families`` says, by family."""
    return {record["name"]: record for record in crowd.run("families", "--format", "json").data}


@pytest.mark.parametrize("family", CASES)
def test_a_broken_plugin_is_named_with_its_package_and_the_cause(
    records: dict[str, dict[str, Any]], family: str
) -> None:
    case = CASES[family]
    said = BROKEN[case][1] if case in BROKEN else CHANGED[case][2]
    error = records[family]["error"]
    assert error.startswith(f"plugin {family} (pack-{family} 0.3.1) ")
    assert said.replace("quokka", family if "entry point" in said else "quokka") in error
    assert "\n" not in error


def test_all_other_families_work_beside_every_kind_of_broken_plugin(
    crowd: Site, records: dict[str, dict[str, Any]]
) -> None:
    assert records["llama"]["error"] == records["qwen"]["error"] == records["good"]["error"] == ""
    matrix = crowd.run("matrix", "--format", "json")
    assert matrix.status == 0
    assert {"llama", "qwen", "good"} <= set(matrix.data)
    assert not CASES.keys() & matrix.data.keys()
    assert "plugin odd-exception (pack-odd-exception 0.3.1) cannot be imported: Odd: x" in matrix.err
    config = crowd.run("--family", "llama", "--task", "sft", "--model_size", "tiny", "--show_config")
    assert config.status == 0


def test_a_run_of_another_family_is_checked_as_if_the_broken_ones_were_not_there(crowd: Site) -> None:
    words = "--family llama --task convert --model_name_or_path nowhere --output_path out".split()
    result = crowd.run(*words)
    assert result.err == (
        "llm-run: --model_name_or_path: nowhere does not exist. Models are folders or files on this machine.\n"
    )


def test_families_as_a_table_says_what_is_wrong_beneath(crowd: Site) -> None:
    lines = crowd.run("families").out.splitlines()
    assert lines[0].split() == ["FAMILY", "PACKAGE", "VERSION", "API", "VARIANTS"]
    assert next(line for line in lines if line.startswith("missing-hook ")).endswith("not usable")
    said = "error: plugin missing-hook (pack-missing-hook 0.3.1) lacks the required hook llm_run_tokenizer."
    assert said in lines


def test_a_plugin_loads_where_standard_output_is_closed(site: Site) -> None:
    site.install("llm-run-quokka", "quokka")
    result = site.python("""
        import os, sys
        os.close(1)
        sys.stdout = None
        from llm_run.core.registry.manager import load_family
        print(load_family("quokka").card.name, file=sys.stderr)
    """)
    assert result.err == "quokka\n"


@pytest.mark.parametrize("family", ["import-error", "exit-at-import", "missing-hook", "newer-major-version"])
def test_asking_for_a_broken_family_is_refused_with_the_cause(crowd: Site, family: str) -> None:
    result = crowd.run("matrix", "--family", family)
    assert result.status == 2
    assert result.err.startswith(f"llm-run: plugin {family} (pack-{family} 0.3.1) ")
    assert len(result.err.splitlines()) == 1


def test_five_megabytes_of_chatter_at_import_do_not_reach_standard_output(site: Site, plugin_source: str) -> None:
    chatter = "import os\nprint('x' * 5_000_000)\nos.write(1, b'past Python')\n"
    site.install("llm-run-quokka", "quokka", chatter + plugin_source)
    result = site.run("families", "--format", "json")
    record = next(record for record in result.data if record["name"] == "quokka")
    assert record["error"] == ""
    assert "printed 5000012 bytes to standard output while it was imported" in record["warnings"][0]


def test_a_newer_minor_version_is_loaded_with_a_warning(site: Site) -> None:
    site.install("llm-run-quokka", "quokka", api="(1, 7)")
    record = next(record for record in site.run("families", "--format", "json").data if record["name"] == "quokka")
    assert record["error"] == ""
    assert "is written for plugin API 1.7, newer than 1.0 here" in record["warnings"][0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("build_model(tiny)", "fails in llm_run_build_model: RuntimeError: no network in this test"),
        ("tokenizer(tiny, None)", "fails in llm_run_tokenizer: RuntimeError: no tokenizer in this test"),
    ],
)
def test_a_hook_that_raises_is_named(site: Site, call: str, said: str) -> None:
    site.install("llm-run-quokka", "quokka")
    result = site.python(f"""
        from llm_run.core.errors import PluginError
        from llm_run.core.registry.manager import load_family
        family = load_family("quokka")
        tiny = family.card.sizes["tiny"]
        try:
            family.{call}
        except PluginError as error:
            print(error)
    """)
    assert result.out == f"plugin quokka (llm-run-quokka 1.2) {said}\n", result.err


@pytest.mark.parametrize(
    ("hook", "answer", "said"),
    [
        ("capabilities(config)", "[]", "returns list from llm_run_capabilities, not a mapping of Support."),
        ("capabilities(config)", "{'sft': True}", "returns bool from llm_run_capabilities['sft'], not Support."),
        ("sharding_map(config)", "[]", "returns list from llm_run_sharding_map, not a tuple of ShardingRule."),
        ("pipeline_split(config)", "('embed',)", "returns tuple from llm_run_pipeline_split, not a tuple of Piece."),
        (
            "quantizable_layers(config)",
            "None",
            "returns NoneType from llm_run_quantizable_layers, not a tuple of QuantGroup.",
        ),
        ("weight_map(config, layout)", "None", "returns NoneType from llm_run_weight_map for 'hf', not WeightMap."),
        ("chat_template(config)", "'{{ x }}'", "returns str from llm_run_chat_template, not ChatTemplate or None."),
        ("tokenizer(config, directory)", "'t'", "returns str from llm_run_tokenizer, not a Tokenizer."),
        ("build_model(config)", "3", "returns int from llm_run_build_model, not CausalLM."),
    ],
)
def test_an_answer_of_a_wrong_type_is_named(site: Site, plugin_source: str, hook: str, answer: str, said: str) -> None:
    site.install(
        "llm-run-quokka", "quokka", f"{plugin_source}\n\n@hookimpl\ndef llm_run_{hook}:\n    return {answer}\n"
    )
    arguments = hook.replace("config", "tiny").replace("layout", "'hf'").replace("directory", "None")
    result = site.python(f"""
        from llm_run.core.errors import PluginError
        from llm_run.core.registry.manager import load_family
        family = load_family("quokka")
        tiny = family.card.sizes["tiny"]
        try:
            family.{arguments}
        except PluginError as error:
            print(error)
    """)
    assert result.out == f"plugin quokka (llm-run-quokka 1.2) {said}\n", result.err


def test_a_refusal_by_the_plugin_itself_passes_through(site: Site, plugin_source: str) -> None:
    source = plugin_source.replace(
        'raise RuntimeError("no tokenizer in this test")',
        'from llm_run.core.errors import DataError\n    raise DataError("vocab.txt: is missing")',
    )
    site.install("llm-run-quokka", "quokka", source)
    result = site.python("""
        from llm_run.core.errors import DataError
        from llm_run.core.registry.manager import load_family
        family = load_family("quokka")
        try:
            family.tokenizer(family.card.sizes["tiny"], None)
        except DataError as error:
            print(error)
    """)
    assert result.out == "vocab.txt: is missing\n", result.err
