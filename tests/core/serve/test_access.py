from __future__ import annotations

import pytest

from llm_run.core.serve.access import ApiKeys, allowed_hosts, check_bind, check_content_type, check_host
from llm_run.core.serve.errors import ApiError

KEY = "a-key-of-more-than-16-characters"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer ", KEY, f"Basic {KEY}", f"Bearer {KEY.upper()}", f"Bearer {KEY}x"]
)
def test_a_wrong_key_is_refused_alike_whatever_is_wrong(header):
    with pytest.raises(ApiError) as refused:
        ApiKeys([KEY, "another-key-of-the-same-server"]).check(header)
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")


def test_each_key_opens():
    keys = ApiKeys([KEY, "another-key-of-the-same-server"])
    keys.check(f"Bearer {KEY}")
    keys.check("bearer another-key-of-the-same-server")


def test_without_keys_everybody_may_ask():
    ApiKeys([]).check(None)


def test_an_address_that_others_reach_needs_a_key():
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        assert [problem.key for problem in check_bind(host, [])] == ["--host"]
        assert check_bind(host, [KEY]) == []
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert check_bind(host, []) == []


def test_a_short_key_is_refused_without_being_told():
    said = str(check_bind("127.0.0.1", ["tiny"])[0])
    assert "--api_key_file" in said and "tiny" not in said


@pytest.mark.parametrize("host", ["127.0.0.1:8010", "localhost", "[::1]:8010", "LOCALHOST:1"])
def test_a_loopback_server_answers_to_its_own_names(host):
    check_host(host, allowed_hosts("127.0.0.1"))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8010", "", None, "127.0.0.1.evil.example"])
def test_a_loopback_server_refuses_other_names(host):
    with pytest.raises(ApiError) as refused:
        check_host(host, allowed_hosts("127.0.0.1"))
    assert refused.value.status == 403


def test_only_json_is_taken():
    check_content_type("application/json; charset=utf-8")
    for header in (None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        with pytest.raises(ApiError) as refused:
            check_content_type(header)
        assert refused.value.status == 415
