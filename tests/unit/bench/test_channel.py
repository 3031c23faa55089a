"""The channel benchmark: its command line, its rows, and that it ends quietly when interrupted."""

import json
from pathlib import Path

import pytest

from bench import channel
from splitlearn.wire import Codec

SMALL_FRAME_BYTES = 1 << 16


class TestMeasure:
    @pytest.mark.parametrize("codec", list(Codec))
    def test_a_row_fills_one_frame(self, codec: Codec) -> None:
        row = channel.measure(codec, max_frame_bytes=SMALL_FRAME_BYTES, repetitions=3)
        assert row["codec"] == codec.value
        assert 0.8 * SMALL_FRAME_BYTES < row["frame_bytes"] <= SMALL_FRAME_BYTES
        assert row["ratio"] == pytest.approx(
            row["aes_gcm_gb_per_second"] / row["seal_open_decode_gb_per_second"], rel=1e-9
        )


class TestMain:
    def test_writes_rows_and_machine(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "channel.json"
        assert channel.main(["--codec", "bf16", "--repetitions", "2", "--json", str(path)]) == 0
        document = json.loads(path.read_text())
        assert [row["codec"] for row in document["rows"]] == ["bf16"]
        assert document["rows"][0]["ratio"] > 0
        assert {"cores", "threads", "versions"} <= document["machine"].keys()
        assert "bf16" in capsys.readouterr().out

    def test_refuses_what_no_file_may_replace(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as refusal:
            channel.main(["--json", "/dev/null"])
        assert refusal.value.code == 2
        assert "regular file" in capsys.readouterr().err
