import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.errors import DataError
from splitlearn.tasks import Record, Template


def rendered(source: str, **columns: object) -> str:
    return Template.parse(source).render(Record(columns, "a.jsonl", 1))


class TestParse:
    @pytest.mark.parametrize(
        "source",
        ["{x.__class__}", "{x[0]}", "{x!r}", "{x:>9}", "{x:{y}}", "{}", "{ x}", "{x:999999999}"],
    )
    def test_refuses_all_but_plain_names(self, source: str) -> None:
        with pytest.raises(DataError, match=r"is not a plain column name; write \{column\}"):
            Template.parse(source)

    @pytest.mark.parametrize("source", ["{", "}", "a {x", "{x}}", "{a{b}"])
    def test_refuses_a_brace_that_stands_alone(self, source: str) -> None:
        with pytest.raises(DataError, match=r"write \{column\} for a column's text"):
            Template.parse(source)

    def test_columns_in_order_of_first_use(self) -> None:
        assert Template.parse("{b} {{c}} {a} {b}").columns == ("b", "a")

    @given(st.text(alphabet="{}ab.!:[] \n", max_size=30))
    def test_any_text_parses_or_is_refused(self, source: str) -> None:
        try:
            names = Template.parse(source).columns
        except DataError:
            return
        assert all("{" + name in source for name in names)


class TestRender:
    def test_puts_columns_in(self) -> None:
        assert rendered("Q: {q a}\n{{x}} A: {n}", **{"q a": "why?", "n": 3}) == "Q: why?\n{x} A: 3"

    def test_text_that_looks_like_a_field_stays(self) -> None:
        assert rendered("{a}", a="{b} {{ }} {a.b}") == "{b} {{ }} {a.b}"

    def test_unknown_column_lists_the_known(self) -> None:
        with pytest.raises(DataError, match=r"a\.jsonl:1: no column 'answer'; the row has 'q', 'a'"):
            rendered("{answer}", q="x", a="y")

    @given(st.text(max_size=50))
    def test_doubled_braces_give_any_text_back(self, text: str) -> None:
        assert rendered(text.replace("{", "{{").replace("}", "}}")) == text

    def test_a_default_stands_for_what_is_missing_null_or_empty(self) -> None:
        source = '{a|else "none"}'
        rows: list[dict[str, object]] = [{}, {"a": None}, {"a": " "}, {"a": []}]
        assert [rendered(source, **row) for row in rows] == ["none"] * 4
        assert rendered(source, a=False) == "false"

    def test_joins_a_list(self) -> None:
        assert rendered('{a|join ", "}', a=["x", 2, True]) == "x, 2, true"
        assert rendered('{a|join ", "}', a="x") == "x"

    def test_refuses_to_join_more_than_texts(self) -> None:
        with pytest.raises(DataError, match="holds more than texts, numbers and booleans"):
            rendered('{a|join ", "}', a=[{}])

    def test_refuses_a_list_that_nobody_joins(self) -> None:
        with pytest.raises(DataError, match=r"column 'a' holds a list.*or join a list"):
            rendered("{a}", a=["x"])

    def test_writes_json(self) -> None:
        assert rendered("{a|json}", a={"x": ["ü", None]}) == '{"x": ["ü", null]}'

    def test_trims(self) -> None:
        assert rendered("[{a|trim}]", a=" x \n") == "[x]"

    @pytest.mark.parametrize(
        ("value", "part"), [("x", "yes"), (0, "yes"), ("", "no"), (False, "no"), (None, "no"), ([], "no")]
    )
    def test_a_condition_asks_whether_a_column_is_filled(self, value: object, part: str) -> None:
        assert rendered("{if a}yes{else}no{end}", a=value) == part
        assert rendered("{if not a}no{else}yes{end}", a=value) == part

    def test_a_condition_compares_texts_numbers_and_booleans(self) -> None:
        assert rendered('{if a == "1"}yes{end}', a=1) == "yes"
        assert rendered('{if a != "true"}yes{end}', a=True) == ""

    def test_a_part_that_is_not_chosen_needs_no_column(self) -> None:
        assert rendered("{if a}{b}{end}c") == "c"

    def test_refuses_a_text_that_grows_beyond_bounds(self) -> None:
        with pytest.raises(DataError, match=r"a\.jsonl:1: the template makes a text of \d+ characters"):
            rendered("{a}" * 2000, a="x" * 10_000)
