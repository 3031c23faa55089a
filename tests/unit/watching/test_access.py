"""Who may read a program's numbers."""

import pytest

from splitlearn.watching import may_read

TOKEN = "word"


class TestMayRead:
    @pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
    def test_lets_this_machine_where_no_token_is_set(self, peer: str) -> None:
        assert may_read(token=None, peer=peer, headers={})

    @pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "localhost", "", None])
    def test_refuses_any_other_where_no_token_is_set(self, peer: str | None) -> None:
        assert not may_read(token=None, peer=peer, headers={"Authorization": "Bearer anything"})

    @pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-for", "Forwarded", "X-Real-IP"])
    def test_takes_no_proxy_of_this_machine_for_its_owner(self, name: str) -> None:
        assert not may_read(token=None, peer="127.0.0.1", headers={name: "203.0.113.7"})

    @pytest.mark.parametrize("header", ["Bearer word", "bearer word", "BEARER word"])
    def test_lets_the_token_from_anywhere(self, header: str) -> None:
        assert may_read(token=TOKEN, peer="203.0.113.7", headers={"authorization": header})

    @pytest.mark.parametrize(
        "header", ["", "word", "Basic word", "Bearer", "Bearer wor", "Bearer wordy", "Bearer ẅ"]
    )
    def test_refuses_what_is_not_the_token_even_here(self, header: str) -> None:
        assert not may_read(token=TOKEN, peer="127.0.0.1", headers={"Authorization": header})
