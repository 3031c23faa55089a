import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from splitlearn.errors import ModelError
from splitlearn.generation import TextStream, end_tokens

END = 256


class ByteTokenizer:
    """Every byte of UTF-8 is a token; one more ends a text."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        assert options == {"skip_special_tokens": True}
        return bytes(token for token in token_ids if token != END).decode("utf-8", errors="replace")


class TestTextStream:
    def test_gives_out_whole_characters_alone(self) -> None:
        stream, text = TextStream(ByteTokenizer()), "naïve 日本"
        pieces = [stream.add(token) for token in text.encode()]
        assert "".join(pieces) == text
        assert "�" not in "".join(pieces)
        assert pieces[2:4] == ["", "ï"]
        assert stream.rest() == ""

    def test_leaves_what_is_cut_for_the_end(self) -> None:
        stream = TextStream(ByteTokenizer())
        pieces = [stream.add(token) for token in "né".encode()[:-1]]
        assert pieces == ["n", ""]
        assert stream.rest() == "�"
        assert stream.text == "n�"

    def test_says_nothing_for_the_end(self) -> None:
        stream = TextStream(ByteTokenizer())
        assert [stream.add(token) for token in (65, END)] == ["A", ""]
        assert stream.text == "A"


class TestEndTokens:
    def folder(self, path: Path, **files: Any) -> Path:
        for name, content in files.items():
            (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return path

    @pytest.mark.parametrize(
        ("files", "expected"),
        [
            ({"generation_config": {"eos_token_id": [7, 2]}, "config": {"eos_token_id": 2}}, {2, 7}),
            ({"generation_config": {}, "config": {"eos_token_id": 2}}, {2}),
            ({"config": {"eos_token_id": 0}}, {0}),
            ({"config": {"eos_token_id": None}}, set()),
            ({}, set()),
        ],
    )
    def test_are_the_folders(self, files: dict[str, Any], expected: set[int], tmp_path: Path) -> None:
        assert end_tokens(self.folder(tmp_path, **files)) == expected

    @pytest.mark.parametrize("told", ["</s>", [2, "x"], -1, True])
    def test_must_be_tokens(self, told: Any, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="eos_token_id is"):
            end_tokens(self.folder(tmp_path, config={"eos_token_id": told}))

    def test_must_be_readable(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(ModelError, match="cannot be read"):
            end_tokens(tmp_path)
