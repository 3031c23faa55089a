"""What the language of templates takes, and the sentence for everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.errors import DataError
from splitlearn.template_syntax import (
    MAX_DEPTH,
    MAX_TEMPLATE_CHARACTERS,
    Asked,
    Condition,
    Field,
    Literal,
    columns_needed,
    columns_read,
    parse_template,
)

ALPHABET = '{}|"\\ab=!. \n'


class TestFields:
    def test_filters_stand_in_any_order(self) -> None:
        assert parse_template('{xs | trim|join ", " |else "none"}') == (
            Field("xs", otherwise="none", separator=", ", trims=True),
        )

    def test_quotes_let_a_name_hold_any_sign(self) -> None:
        assert parse_template(r'{"a.b[0]\"}"}{"end"}') == (Field('a.b[0]"}'), Field("end"))

    def test_a_text_in_quotes_may_hold_braces_and_escapes(self) -> None:
        assert parse_template(r'{a|else "}\n\t\"\\"}') == (Field("a", otherwise='}\n\t"\\'),)

    @pytest.mark.parametrize(
        ("source", "character", "what"),
        [
            ("ab {x.y}", 4, "not a plain column name"),
            ("ab }", 4, "a '}' stands alone"),
            ("ab {x", 4, "never closed"),
            ("{a} {b|upper}", 5, "'upper' is no filter; there are else, join, json and trim"),
            ("{a|else}", 1, "'else' needs a text in quotes"),
            ('{a|trim "x"}', 1, "'trim' takes no text"),
            ('{a|else "x"|else "y"}', 1, "'else' stands twice"),
            ('{a|json|join ","}', 1, "'join' and 'json' exclude each other"),
            (r'{a|join "\q"}', 1, r"no escape"),
        ],
    )
    def test_errors_name_the_character(self, source: str, character: int, what: str) -> None:
        with pytest.raises(DataError, match=f"character {character}: .*{what}"):
            parse_template(source)


class TestConditions:
    def test_four_questions(self) -> None:
        asked = [
            node.asked
            for node in parse_template('{if a}1{end}{if not a}1{end}{if a == "x"}1{end}{if a != "x"}1{end}')
            if isinstance(node, Condition)
        ]
        assert asked == [Asked.FILLED, Asked.EMPTY, Asked.EQUAL, Asked.OTHER]

    def test_stand_within_each_other(self) -> None:
        [outer] = parse_template("{if a}{if b}1{else}2{end}{else}3{end}")
        inner = Condition("b", Asked.FILLED, "", (Literal("1"),), (Literal("2"),))
        assert outer == Condition("a", Asked.FILLED, "", (inner,), (Literal("3"),))

    @pytest.mark.parametrize(
        ("source", "character", "what"),
        [
            ("x {if a}1", 3, r"\{if a\} has no \{end\}"),
            ("x {end}", 3, r"\{end\} without"),
            ("{if a}{else}{else}{end}", 1, r"a second \{else\}"),
            ("{if a == b}{end}", 1, "is no condition; there are"),
            ('{if not a == "b"}{end}', 1, "is no condition"),
            ("{if}", 1, "is no condition"),
            ("{if a.b}{end}", 1, "'a.b' is not a plain column name"),
            ("{if a}" * (MAX_DEPTH + 1) + "{end}" * (MAX_DEPTH + 1), 49, f"more than {MAX_DEPTH} conditions"),
        ],
    )
    def test_errors_name_the_character(self, source: str, character: int, what: str) -> None:
        with pytest.raises(DataError, match=f"character {character}: .*{what}"):
            parse_template(source)


class TestColumns:
    def test_needed_are_those_without_which_no_row_can_be_written(self) -> None:
        nodes = parse_template('{a}{b|else ""}{if c}{d}{else}{e}{end}{a}')
        assert columns_read(nodes) == ("a", "b", "c", "d", "e")
        assert columns_needed(nodes) == ("a",)


class TestLimits:
    def test_refuses_a_template_that_is_too_long(self) -> None:
        with pytest.raises(DataError, match=f"the limit is {MAX_TEMPLATE_CHARACTERS}"):
            parse_template("a" * (MAX_TEMPLATE_CHARACTERS + 1))

    @given(st.text(alphabet=ALPHABET, max_size=60))
    def test_any_text_is_read_or_refused(self, source: str) -> None:
        try:
            nodes = parse_template(source)
        except DataError:
            return
        assert set(columns_needed(nodes)) <= set(columns_read(nodes))

    @given(st.text(max_size=50))
    def test_doubled_braces_are_any_text(self, text: str) -> None:
        nodes = parse_template(text.replace("{", "{{").replace("}", "}}"))
        assert "".join(node.text for node in nodes if isinstance(node, Literal)) == text
