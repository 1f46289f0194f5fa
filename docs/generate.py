"""Write the pages of docs/ that come from the program itself, so that they cannot be out of date.

python docs/generate.py           write them
python docs/generate.py --check   fail where one differs (make check does)
"""

from __future__ import annotations

import sys
from pathlib import Path

from llm_run.core.commands.configuration import TITLES
from llm_run.core.config.schema import Option, options
from llm_run.core.registry.capability import matrix
from llm_run.core.registry.manager import installed, load_family

DOCS = Path(__file__).resolve().parent
MADE = "<!-- made by docs/generate.py: change the program, not this page -->\n\n"


def options_page() -> str:
    """Return a table of all options for each group."""
    page = f"# Options\n\n{MADE}As flags (`--learning_rate 2e-5`) or keys of a `--config` file (JSON or YAML).\n"
    for group, title in TITLES.items():
        page += f"\n## {title}\n\n| option | default | meaning | tasks |\n| --- | --- | --- | --- |\n"
        page += "".join(_row(option) for option in options().values() if option.group == group)
    return page


def _row(option: Option) -> str:
    names = f"`{option.name}`" + "".join(f", `{alias}`" for alias in option.aliases)
    default = "" if option.default in (None, "", ()) else f"`{_shown(option.default)}`"
    choices = f" ({', '.join(f'`{choice}`' for choice in option.choices)})" if option.choices else ""
    tasks = "all" if option.tasks == ("*",) else ", ".join(option.tasks)
    return f"| {names} | {default} | {option.help}{choices} | {tasks} |\n"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def matrix_page() -> str:
    """Return a table of features by family and variant, with the test behind every yes."""
    families = [load_family(name) for name, source in installed().families.items() if source.distribution == "llm-run"]
    page = f"# What works\n\n{MADE}Each yes names the test that proves it. `llm-run matrix` prints the same, shorter.\n"
    for family, variants in matrix(families).items():
        page += f"\n## {family}\n"
        for names, cells in _alike(variants).items():
            page += f"\nVariants: {', '.join(names)}\n\n| feature | | proof or reason |\n| --- | --- | --- |\n"
            for feature, cell in cells.items():
                page += f"| {feature} | {cell.support} | {f'`{cell.proof}`' if cell.proof else cell.reason} |\n"
    return page


def _alike(variants):  # type: ignore[no-untyped-def]
    """Group the variants whose rows are equal, as ``{names: row}``."""
    groups: list[tuple[list[str], object]] = []
    for name, cells in variants.items():
        for names, known in groups:
            if known == cells:
                names.append(name)
                break
        else:
            groups.append(([name], cells))
    return {tuple(names): cells for names, cells in groups}


PAGES = {"options.md": options_page, "matrix.md": matrix_page}


def main() -> int:
    stale = []
    for name, build in PAGES.items():
        path, text = DOCS / name, build()
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"docs/{', docs/'.join(stale)}: out of date. Run `python docs/generate.py`.", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
