from pathlib import Path

import pytest

from splitlearn.comparison.yaml_text import MAX_FILE_BYTES, parse_yaml, read_yaml
from splitlearn.errors import SpecError


def content(text: str) -> dict[str, object]:
    return parse_yaml(text, source="s.yaml").content


class TestParseYaml:
    def test_reads_what_json_could_say(self) -> None:
        text = "a: 1\nb: 2.5\nc: true\nd: null\ne: [x, {f: y}]\ng: 'a: b'\n"
        assert content(text) == {"a": 1, "b": 2.5, "c": True, "d": None, "e": ["x", {"f": "y"}], "g": "a: b"}

    def test_takes_a_power_of_ten_for_a_number_and_a_quoted_one_for_a_text(self) -> None:
        assert content("a: 1e-3\nb: '1e-3'") == {"a": 0.001, "b": "1e-3"}

    def test_takes_keys_as_they_are_written(self) -> None:
        assert content("answers: {0: bad, no: worse, 1.0: good}") == {
            "answers": {"0": "bad", "no": "worse", "1.0": "good"}
        }

    def test_takes_a_date_for_a_text(self) -> None:
        assert content("name: 2024-01-02") == {"name": "2024-01-02"}

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("a: 1\nb: &x 2\nc: *x", "s.yaml:3: found the alias *x"),
            ("a: 1\nb: 2\na: 3", "s.yaml:3: found a a second time"),
            ("a:\n  b: 1\n  b: 2", "s.yaml:3: found a.b a second time"),
            ("a: {<<: {b: 1}}", "s.yaml:1: found the merge key"),
            ("a: !!python/object:os.system x", "s.yaml:1: found the tag tag:yaml.org,2002:python/object"),
            ("? [a, b]\n: 1", "s.yaml:1: found a key that is no word"),
            ("a: [", "s.yaml: not YAML"),
            ("- a\n- b", "s.yaml: expected fields"),
            ("", "s.yaml: expected fields"),
            ("a: " + "[" * 40 + "]" * 40, "s.yaml:1: found more than 32 levels"),
        ],
    )
    def test_refuses_with_the_line(self, text: str, found: str) -> None:
        with pytest.raises(SpecError) as caught:
            content(text)
        assert caught.value.message.startswith(found)


class TestPlaceOf:
    TEXT = parse_yaml("a: 1\nrate:\n  peak: 2\nlist:\n  - b: 3\n", source="s.yaml")

    @pytest.mark.parametrize(
        ("path", "place"),
        [
            ("rate.peak", "s.yaml:3"),
            ("rate.kind.peak", "s.yaml:3"),
            ("rate.unknown", "s.yaml:2"),
            ("list.0.b", "s.yaml:5"),
            ("absent", "s.yaml"),
        ],
    )
    def test_is_the_nearest_line(self, path: str, place: str) -> None:
        assert self.TEXT.place_of(path) == place

    def test_stands_before_each_line_of_a_message(self) -> None:
        assert self.TEXT.located("rate.peak: too much\nb: unknown") == (
            "s.yaml:3: rate.peak: too much\ns.yaml: b: unknown"
        )


class TestReadYaml:
    def test_refuses_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="No such file"):
            read_yaml(tmp_path / "absent.yaml")

    def test_refuses_a_file_that_is_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        with pytest.raises(SpecError, match="more than 1048576 bytes"):
            read_yaml(tmp_path / "large.yaml")
