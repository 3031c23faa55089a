"""The benchmark of generation: a tiny run of both sides, which must give the same tokens."""

import json
from pathlib import Path

import pytest

from bench import generate
from bench.generate import Shape

TINY = ["--dim", "32", "--layers", "3", "--prompt", "5", "--new", "3", "--turns", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def _on_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.generate.stay_on_cores", lambda _: None)


def test_writes_a_row_per_batch_and_delay(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    delays = ["--delay", "0", "--delay", "1"]
    assert generate.main([*TINY, "--batch", "2", *delays, "--json", str(target)]) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [row["round_trip_seconds"] for row in rows] == [0, 0.001]
    for row in rows:
        assert row["tokens_per_second"] == pytest.approx(6 / row["split_seconds"])
        assert row["ratio"] == pytest.approx(row["split_seconds"] / row["whole_seconds"])
        assert row["floor_seconds"] == pytest.approx(row["whole_seconds"] + 3 * row["round_trip_seconds"])
        # 14 tokens cross, each way 32 numbers of 4 bytes, and what seals and describes 7 messages.
        assert 256 < row["bytes_per_token"] < 256 + 7 * 512 / 14


def test_counts_what_crosses() -> None:
    shape = Shape(batch_size=4, prompt=10, new=3, round_trip_seconds=0.0)
    assert shape.num_crossing == 4 * 12
    assert shape.prompts(50) == shape.prompts(50)
    assert [len(prompt) for prompt in shape.prompts(50)] == [10] * 4


@pytest.mark.parametrize(
    "argument", [["--delay", "-1"], ["--delay", "x"], ["--new", "0"], ["--codec", "mp3"]]
)
def test_refuses(argument: list[str]) -> None:
    with pytest.raises(SystemExit):
        generate.parse(argument)
