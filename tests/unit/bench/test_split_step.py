"""The split-step benchmark: its command line, and one tiny row measured for real."""

import asyncio
import json
import math
import os
from pathlib import Path

import pytest

from bench.cases import Case, select_cases
from bench.measuring import Effort, Environments, Link, compare
from bench.split_step import parse
from bench.tables import write_json

TINY = Case(
    dim=32, layers=3, adapter="lora", clip=1.0, vocab_size=64, num_heads=2, batch_size=2, max_tokens=16
)
QUICK = Effort(warmup=1, steps=2, alternations=1, threads=1)
ENVIRONMENT = dict(os.environ)  # noqa: TID251 - the children need a PATH like anybody


class TestParse:
    def test_measures_every_row_by_default(self) -> None:
        options = parse([])
        cases = list(select_cases(dims=options.dim, adapters=options.adapter, clips=options.clip))
        assert len(cases) == 8
        assert {(case.dim, case.layers) for case in cases} == {(512, 8), (768, 12)}
        assert (options.steps, options.warmup, options.alternations) == (20, 5, 3)
        assert options.link == "platform"

    def test_flags_select_rows(self) -> None:
        options = parse(["--dim", "512", "--adapter", "full", "--clip", "off"])
        cases = list(select_cases(dims=options.dim, adapters=options.adapter, clips=options.clip))
        assert cases == [Case(dim=512, layers=8, adapter="full", clip=None)]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--dim", "100"],
            ["--adapter", "prefix"],
            ["--clip", "2"],
            ["--steps", "0"],
            ["--link", "memory"],
            ["--json", "/dev/null"],
        ],
    )
    def test_refuses_what_it_cannot_do(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as refusal:
            parse(arguments)
        assert refusal.value.code == 2
        assert arguments[0] in capsys.readouterr().err


class TestCompare:
    @pytest.mark.parametrize(
        "link", ["websocket", pytest.param("platform", marks=[pytest.mark.slow, pytest.mark.long])]
    )
    def test_measures_processes_against_one(self, link: Link, tmp_path: Path) -> None:
        environments = Environments(split=ENVIRONMENT, reference=ENVIRONMENT)
        row = asyncio.run(compare(TINY, QUICK, environments, link=link)).row()

        write_json(tmp_path / "out.json", rows=[row], machine={"cores": 2})
        document = json.loads((tmp_path / "out.json").read_text())
        assert document["machine"] == {"cores": 2}
        (kept,) = document["rows"]
        assert {key: kept[key] for key in ("link", "dim", "layers", "adapter", "clip")} == {
            "link": link,
            "dim": 32,
            "layers": 3,
            "adapter": "lora",
            "clip": 1.0,
        }
        assert kept["ratio"] == kept["split_seconds"] / kept["centralised_seconds"]
        assert math.isfinite(kept["ratio"])
        # Headers weigh on so small a step, but four bf16 tensors must have crossed, and not eight.
        assert TINY.payload_bytes_per_token < kept["bytes_per_token"] < 2 * TINY.payload_bytes_per_token
        # Both trained the same model on the same rows: bf16 on the wire keeps 8 bits, 2^-8 of a loss near 4.
        assert kept["split_loss"] == pytest.approx(kept["centralised_loss"], rel=2**-8)
