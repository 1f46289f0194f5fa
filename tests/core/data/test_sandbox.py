"""Templates of strangers: what they may do, what they may not, and what stops them."""

from __future__ import annotations

import resource
import time

import pytest

from llm_run.core.data.sandbox import check_template, render_template
from llm_run.core.errors import DataError

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ messages.append(1) }}",
    "{{ messages.clear() }}",
    "{% set x = messages[0].update({'role': 'a'}) %}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ ''|attr('__class__') }}{{ (''|attr('__class__')).mro() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ 'a{x.__class__}'.format_map({'x': 1}) }}",
    "{{ '%s' | format(messages) }}",
    "{{ raise_exception.__globals__ }}",
]
BOMBS = [
    "{{ 'a' * 500000000 }}",
    "{{ 10 ** 9999999999 }}",
    "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
    "{% for i in range(90000) %}{{ 'some words that fill the memory' * 100 }}{% endfor %}",
    "{{ 'a'.center(9999999999) }}",
    "{{ 'a' | center(9999999999) }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
    "{{ ('\t' * 1000000).expandtabs(1000000) }}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{{ range(99999999) | list }}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x ** 64 %}{% endfor %}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_reaches_nothing_outside_of_its_values(template: str) -> None:
    messages = [{"role": "user", "content": "x"}]
    try:
        rendered = render_template(template, {"messages": messages})
    except DataError:
        rendered = ""
    assert not any(word in rendered for word in ("class", "uid=", "subclasses", "<module", "builtin", "role"))
    assert messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize("template", BOMBS)
def test_a_bomb_is_stopped_early(template: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with pytest.raises(
        DataError, match=r"chat template: (stopped for safety|it fails on this conversation|it refuses)"
    ):
        render_template(template, {})
    assert time.process_time() - start < 20, "bound against hanging; stopped in 0.0 to 1.5 s where it was written"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


def test_what_a_template_says_ends_with_one_full_stop() -> None:
    for template in ("{{ messages.__class__.__mro__ }}", "{{ raise_exception('No tools here.') }}"):
        with pytest.raises(DataError, match=r"[^.]\.$"):
            render_template(template, {"messages": [{"role": "user", "content": "x"}]})


def test_the_bounds_leave_long_conversations_alone() -> None:
    messages = [{"role": "user", "content": "word " * 20_000 + "</think> rest"} for _ in range(50)]
    template = (
        "{% for m in messages %}{{ loop.index }}{% if loop.last %}!{% endif %}"
        "{{ m.content.split('</think>')[-1] | trim }}"
        "{{ m['content'].replace('word', 'a much longer word') ~ m.role }}{% endfor %}"
    )
    assert len(render_template(template, {"messages": messages})) > 10_000_000


def test_templates_have_what_hugging_face_gives_them() -> None:
    template = (
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{{ x | tojson }}{{ strftime_now('%Y') | length }}"
    )
    variables = {"messages": [{"content": "a"}, {"content": "b"}], "x": {"k": "<é>"}}
    assert render_template(template, variables) == 'b{"k": "<é>"}4'
    numbers = "{{ 1700000000 + 1 }} {{ 1700000000 * 3 }} {{ 2 ** 10 }} {{ 1700000000 | string }} {{ 7 % 4 }}"
    assert render_template(numbers, {}) == "1700000001 5100000000 1024 1700000000 3"


def test_a_line_that_holds_only_a_statement_leaves_no_trace() -> None:
    assert render_template("a\n   {% if true %}\nb\n   {% endif %}\nc", {}) == "a\nb\nc"


def test_what_the_template_says_against_a_conversation_is_passed_on() -> None:
    with pytest.raises(DataError, match=r"chat template: it refuses this conversation: roles must alternate\."):
        render_template("{{ raise_exception('roles must alternate') }}", {})


def test_a_mistake_in_a_template_is_named_with_its_line() -> None:
    with pytest.raises(DataError, match=r"dir/x\.jinja: the chat template is not valid Jinja: line 2: "):
        check_template("{% if a %}\n{% endfor %}", "dir/x.jinja")


def test_a_template_that_is_too_long_is_not_compiled() -> None:
    with pytest.raises(DataError, match=r"x: the chat template has 1000001 characters; at most 1000000 are read\."):
        check_template("a" * 1_000_001, "x")
