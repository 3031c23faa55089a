"""The gateway's benchmark: its rows, and that its child processes end with it."""

import json
from pathlib import Path

import pytest

from bench import gateway

SMALL = ("--pairs", "2", "--frames", "4", "--bursts", "1", "--frame-bytes", "65536", "--agents", "3")


class TestMain:
    def test_writes_rows_and_machine(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "gateway.json"
        assert gateway.main([*SMALL, "--json", str(path)]) == 0
        relay, idle = json.loads(path.read_text())["rows"]
        assert (relay["pairs"], relay["frame_bytes"]) == (2, 65536)
        assert relay["ratio"] == pytest.approx(
            relay["gateway_gb_per_second"] / relay["echo_gb_per_second"], rel=1e-9
        )
        assert idle["agents"] == 3
        assert idle["paired_resident_bytes"] >= 1 << 20
        out = capsys.readouterr().out
        assert "ratio" in out
        assert "KiB per pair" in out
