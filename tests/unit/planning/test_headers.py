import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitlearn.planning import ModelFilesError, read_header

GOOD = {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}


def file_of(header: Any, data: bytes = bytes(24)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class TestReadHeader:
    def test_tells_name_type_shape_and_size(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_bytes(file_of({"__metadata__": {"format": "pt"}, **GOOD}))
        (info,) = read_header(tmp_path / "m").values()
        assert (info.name, info.dtype, info.shape, info.num_bytes) == ("w", "F32", (2, 3), 24)
        assert info.num_elements == 6

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "too few"),
            (file_of(GOOD)[:20], "the header says"),
            (struct.pack("<Q", 1 << 60), "the limit is"),
            (file_of(GOOD, bytes(23)), "'w' ends at byte 24, the file's data at 23"),
            (file_of({"w": {**GOOD["w"], "shape": [2, 4]}}), "'w' has 24 bytes, which its shape denies"),
            (file_of({"w": {**GOOD["w"], "dtype": "X7"}}), "malformed"),
            (file_of({"w": {**GOOD["w"], "shape": None}}), "malformed"),
            (file_of({"w": {**GOOD["w"], "shape": ["2", 3]}}), "malformed"),
            (file_of({"w": {**GOOD["w"], "shape": [-2, -3]}}), "malformed"),
            (file_of({"w": {**GOOD["w"], "data_offsets": [0.0, 24.0]}}), "malformed"),
            (file_of({"w": 3}), "malformed"),
            (file_of([]), "malformed"),
            (struct.pack("<Q", 4) + b"\xff\xfe{}", "malformed"),
        ],
    )
    def test_refuses_a_corrupt_file_by_name(self, content: bytes, message: str, tmp_path: Path) -> None:
        (tmp_path / "broken.safetensors").write_bytes(content)
        with pytest.raises(ModelFilesError, match=rf"broken\.safetensors is corrupt: .*{message}.*again"):
            read_header(tmp_path / "broken.safetensors")

    def test_refuses_a_missing_file_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFilesError, match=r"absent\.safetensors cannot be read"):
            read_header(tmp_path / "absent.safetensors")

    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.integers(0, len(file_of(GOOD)) - 1), value=st.integers(0, 255))
    def test_raises_nothing_else_for_a_changed_byte(self, place: int, value: int, tmp_path: Path) -> None:
        content = bytearray(file_of(GOOD))
        content[place] = value
        (tmp_path / "mutant").write_bytes(content)
        try:
            read_header(tmp_path / "mutant")
        except ModelFilesError as refusal:
            assert "mutant" in str(refusal)  # noqa: PT017 - most mutants, but not all, are refused

    def test_stops_at_the_limit(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_bytes(file_of(GOOD))
        read: Callable[..., object] = read_header
        with pytest.raises(ModelFilesError, match="the limit is 10"):
            read(tmp_path / "m", max_header_bytes=10)
