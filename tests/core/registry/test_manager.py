"""Which plugins are installed, who gets a name, and which family answers for a config.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_run.core.registry.manager import one_line

if TYPE_CHECKING:
    from ..conftest import Site

FIND = """
    import json, sys
    from llm_run.core.errors import LlmRunError
    from llm_run.core.registry.manager import find_family
    try:
        print(find_family(json.loads(sys.argv[1])).card.name)
    except LlmRunError as error:
        print(error)
"""


def test_an_outside_plugin_is_found_by_its_entry_point(site: Site) -> None:
    site.install("llm-run-quokka", "quokka")
    record = next(record for record in site.run("families", "--format", "json").data if record["name"] == "quokka")
    assert record["package"] == "llm-run-quokka"
    assert record["version"] == "1.2"
    assert record["variants"] == ["tiny"]
    assert record["api_version"] == [1, 0]


def test_a_built_in_family_wins_over_an_outsider_with_its_name(site: Site) -> None:
    site.install("evil-llama", "llama")
    records = [record for record in site.run("families", "--format", "json").data if record["name"] == "llama"]
    assert [record["package"] for record in records] == ["llm-run", "evil-llama"]
    assert records[0]["error"] == ""
    assert "evil-llama 1.2) claims the name 'llama', which the built-in family has" in records[1]["error"]


def test_two_outsiders_with_one_name_are_both_refused_and_both_named(site: Site) -> None:
    site.install("first-quokka", "quokka", version="1.0")
    site.install("second-quokka", "quokka", version="2.0")
    result = site.run("matrix", "--family", "quokka")
    assert result.status == 2
    assert "(first-quokka 1.0) claims the name 'quokka', and so does second-quokka 2.0: neither is loaded" in result.err
    assert "(second-quokka 2.0) claims the name 'quokka', and so does first-quokka 1.0: neither is loaded" in result.err
    assert set(site.run("matrix", "--format", "json").data) >= {"llama", "qwen"}


def test_a_distribution_that_stands_twice_on_the_path_is_no_twin(site: Site) -> None:
    site.install("llm-run-quokka", "quokka")
    old = site.path / "old"
    old.mkdir()
    (old / "llm_run_quokka-1.0.dist-info").mkdir()
    (old / "llm_run_quokka-1.0.dist-info" / "METADATA").write_text("Name: LLM_Run.Quokka\nVersion: 1.0\n")
    (old / "llm_run_quokka-1.0.dist-info" / "entry_points.txt").write_text("[llm_run.families]\nquokka = other\n")
    result = site.python(
        """
        import sys; sys.path.append(sys.argv[1])
        from llm_run.core.registry.manager import installed
        print(installed().families["quokka"].version)
        """,
        str(old),
    )
    assert result.out == "1.2\n", result.err


def test_broken_metadata_is_reported_with_its_package(site: Site) -> None:
    site.install("llm-run-quokka", "quokka")
    site.metadata("bad-bytes", b"[llm_run.families]\nx = \xff\xfe\n")
    site.metadata("bad-form", "[llm_run.families]\njust words\n")
    (site.path / "no_name-1.0.dist-info").mkdir()
    records = site.run("families", "--format", "json").data
    errors = {record["package"]: record["error"] for record in records}
    assert "has metadata that cannot be read: entry_points.txt" in errors["bad-bytes"]
    assert "has metadata that cannot be read: entry_points.txt" in errors["bad-form"]
    assert errors["llm-run-quokka"] == ""
    assert errors["llm-run"] == ""


def test_the_environment_can_leave_families_out(site: Site) -> None:
    site.install("llm-run-quokka", "quokka", "raise SystemExit(3)")
    result = site.run("matrix", "--format", "json", LLM_RUN_BLOCK_PLUGINS="quokka, qwen")
    assert "llama" in result.data
    assert "qwen" not in result.data
    assert result.err == ""
    refused = site.run("matrix", "--family", "qwen", LLM_RUN_BLOCK_PLUGINS="quokka, qwen")
    assert refused.status == 2
    assert "plugin qwen (llm-run 0.1.0) is blocked by LLM_RUN_BLOCK_PLUGINS" in refused.err


def test_an_unknown_family_is_refused_with_the_nearest_name(site: Site) -> None:
    result = site.run("matrix", "--family", "qwenn")
    assert result.status == 2
    assert "--family: 'qwenn' is not installed. Did you mean 'qwen'? Installed: " in result.err


def test_only_the_family_that_is_asked_for_is_imported(site: Site) -> None:
    site.install("llm-run-quokka", "quokka")
    result = site.python("""
        import sys
        from llm_run.core.registry.manager import load_family
        load_family("quokka")
        print(sorted(name for name in sys.modules if "quokka" in name or name.startswith("llm_run.plugins.")))
    """)
    assert result.out == "['llm_run_quokka']\n"


def test_a_config_is_answered_by_architecture_before_model_type(site: Site, plugin_source: str) -> None:
    source = plugin_source.replace("architectures=()", "architectures=('QuokkaForCausalLM',)")
    site.install("llm-run-quokka", "quokka", source)
    assert site.python(FIND, '{"architectures": ["QuokkaForCausalLM"], "model_type": "llama"}').out == "quokka\n"
    assert site.python(FIND, '{"architectures": ["Unheard"], "model_type": "quokka"}').out == "quokka\n"


def test_a_config_that_nobody_answers_for_lists_what_is_installed_and_what_is_broken(site: Site) -> None:
    site.install("llm-run-quokka", "quokka", "import nothing_like_this")
    said = site.python(FIND, '{"model_type": "gemma"}').out
    assert said.startswith("config.json: 'gemma' belongs to no installed family. Installed: ")
    assert "llama" in said
    assert "Not loaded: plugin quokka (llm-run-quokka 1.2) cannot be imported" in said


def test_a_config_that_says_nothing_is_refused(site: Site) -> None:
    assert "neither model_type nor architectures says which family" in site.python(FIND, "{}").out


def test_a_config_that_two_families_claim_is_refused(site: Site, plugin_source: str) -> None:
    site.install("llm-run-quokka", "quokka")
    other = plugin_source.replace('NAME, API = "quokka"', 'NAME, API = "wombat"')
    site.install("llm-run-wombat", "wombat", other.replace("model_types=(NAME,)", "model_types=('quokka',)"))
    said = site.python(FIND, '{"model_type": "quokka"}').out
    assert said == "config.json: 'quokka' is claimed by quokka and wombat. Say which with --family.\n"


def test_an_exception_becomes_one_short_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "ValueError: two lines"
    assert one_line(KeyError()) == "KeyError"
    assert len(one_line(ValueError("x" * 1000))) == 300
