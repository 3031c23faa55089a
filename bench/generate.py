"""How fast is split generation, beside the same model in one piece?

Silo and worker are threads of this process that talk over memory links, through protocol and sealed
channel as between machines; a delay line stands for the network. The reference is the library's own
``generate`` on the whole model with a dynamic cache, in the same process, with as many threads; both take
turns on the same prompts, greedily and without an end token, and must give the same tokens. Every number is
the median of the turns.

Seconds are of a whole answer: the prompts, then one step per token. ``floor`` is what no split generation
over that line can be faster than: the reference's seconds and one round trip per step; ``over`` is what the
split took beyond it, per step. Bytes are sealed frames of the generating turn in both directions, per token
of prompt and answer that crossed (a row's last token does not cross).
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from bench.cases import SILO, Case
from bench.delay_line import DelayedLines
from bench.machine import describe_machine, stay_on_cores
from bench.model_folder import write_model
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.generation import Generated, GenerationOptions
from splitlearn.simulation.generating import Generation, Parts, generating, load_parts
from splitlearn.spec import JobSpec
from splitlearn.wire import Codec, Phase

_NUM_CORES = 2
_FP32_BYTES = 4
_COLUMNS = (
    "batch", "round trip", "tokens/s", "whole tokens/s", "ratio", "split s", "whole s", "floor s",
    "over ms/step", "B/token", "fp32 B/token",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is generated.

    Attributes:
        batch_size: Rows.
        prompt: Tokens of each prompt.
        new: Tokens of each answer.
        round_trip_seconds: Between silo and worker.
    """

    batch_size: int
    prompt: int
    new: int
    round_trip_seconds: float

    @property
    def num_crossing(self) -> int:
        """Tokens whose hidden states cross: all but the last of each row."""
        return self.batch_size * (self.prompt + self.new - 1)

    def prompts(self, vocab_size: int) -> list[list[int]]:
        """Return the same random prompts for both sides."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(vocab_size, (self.batch_size, self.prompt), generator=generator).tolist()


@dataclass(frozen=True, slots=True)
class Turn:
    """One split answer and one of the whole model."""

    split_seconds: float
    whole_seconds: float
    num_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    stay_on_cores(_NUM_CORES)
    torch.set_num_threads(options.threads)
    case = Case(
        dim=options.dim,
        layers=options.layers,
        adapter="full",
        clip=None,
        vocab_size=1024,
        max_tokens=options.prompt + options.new,
    )
    shapes = [
        Shape(batch_size=batch_size, prompt=options.prompt, new=options.new, round_trip_seconds=delay / 1000)
        for batch_size in options.batch or [1, 8]
        for delay in options.delay or [0, 100]
    ]
    rows = [_row(case, shape, options.turns, codec=options.codec) for shape in shapes]
    title = f"Split generation, dim {case.dim} x {case.layers}, cut 1 + 1, {options.codec}"
    print_table(title, _COLUMNS, [_cells(row) for row in rows])
    if options.json is not None:
        write_json(options.json, rows=rows, machine=describe_machine(threads=options.threads))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.generate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dim", type=positive, default=256, help="hidden size, a multiple of 16 (default 256)"
    )
    parser.add_argument("--layers", type=positive, default=6, help="decoder layers (default 6)")
    parser.add_argument("--batch", type=positive, action="append", help="rows at once (default 1 and 8)")
    parser.add_argument(
        "--delay", type=_milliseconds, action="append", help="round trip in ms (default 0, 100)"
    )
    parser.add_argument("--prompt", type=positive, default=64, help="tokens of each prompt (default 64)")
    parser.add_argument("--new", type=positive, default=32, help="tokens of each answer (default 32)")
    parser.add_argument("--turns", type=positive, default=3, help="answers of each side (default 3)")
    parser.add_argument("--threads", type=positive, default=2, help="torch's threads (default 2)")
    parser.add_argument(
        "--codec",
        choices=[codec.value for codec in Codec],
        default="fp32",
        help="of what crosses (default fp32)",
    )
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def _milliseconds(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of milliseconds")
    return int(text)


def _row(case: Case, shape: Shape, turns: int, *, codec: str) -> Row:
    say(f"batch {shape.batch_size}, round trip {1000 * shape.round_trip_seconds:.0f} ms")
    measured = asyncio.run(_measure(case, shape, turns, codec=codec))
    split = statistics.median(turn.split_seconds for turn in measured)
    whole = statistics.median(turn.whole_seconds for turn in measured)
    floor = whole + shape.new * shape.round_trip_seconds
    num_new = shape.batch_size * shape.new
    return {
        "batch_size": shape.batch_size,
        "prompt": shape.prompt,
        "new": shape.new,
        "round_trip_seconds": shape.round_trip_seconds,
        "codec": codec,
        "dim": case.dim,
        "layers": case.layers,
        "tokens_per_second": num_new / split,
        "whole_tokens_per_second": num_new / whole,
        "ratio": split / whole,
        "split_seconds": split,
        "whole_seconds": whole,
        "floor_seconds": floor,
        "over_seconds_per_step": (split - floor) / shape.new,
        "bytes_per_token": statistics.median(turn.num_bytes for turn in measured) / shape.num_crossing,
        "fp32_bytes_per_token": 2 * case.dim * _FP32_BYTES,
        "split_turns_seconds": [turn.split_seconds for turn in measured],
        "whole_turns_seconds": [turn.whole_seconds for turn in measured],
    }


async def _measure(case: Case, shape: Shape, turns: int, *, codec: str) -> list[Turn]:
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as temporary:
        folder = Path(temporary) / "model"
        write_model(case, folder)
        spec = JobSpec.parse(
            {"model": str(folder), "silos": [{"name": SILO, "dataset": "synthetic"}], "codec": codec}
        )
        whole = AutoModelForCausalLM.from_pretrained(folder).eval()
        parts = load_parts(spec, model_folder=folder, silo=SILO)
        return await _take_turns(spec, parts, whole, shape, vocab_size=case.vocab_size, turns=turns)


async def _take_turns(
    spec: JobSpec, parts: Parts, whole: Any, shape: Shape, *, vocab_size: int, turns: int
) -> list[Turn]:
    prompts = shape.prompts(vocab_size)

    def lines(names: Sequence[str]) -> DelayedLines:
        return DelayedLines(names, round_trip_seconds=shape.round_trip_seconds)

    measured = []
    async with generating(spec, parts, silo=SILO, make_lines=lines) as generation:
        for turn in range(turns + 1):
            whole_seconds, expected = _whole(whole, prompts, shape.new)
            split_seconds, num_bytes, found = await _split(generation, prompts, shape.new)
            if spec.codec == "fp32" and [list(row) for row in found.tokens] != expected:
                raise AssertionError("the split model answered otherwise than the whole one")
            if turn:  # the first of each warms up
                measured.append(Turn(split_seconds, whole_seconds, num_bytes))
    return measured


async def _split(generation: Generation, prompts: list[list[int]], new: int) -> tuple[float, int, Generated]:
    before, began = generation.traffic.bytes_of(Phase.GENERATE), time.perf_counter()
    found = await generation.generator.generate(prompts, GenerationOptions(max_new_tokens=new))
    seconds = time.perf_counter() - began
    return seconds, generation.traffic.bytes_of(Phase.GENERATE) - before, found


def _whole(model: Any, prompts: list[list[int]], new: int) -> tuple[float, list[list[int]]]:
    model.generation_config = GenerationConfig(max_new_tokens=new, do_sample=False, pad_token_id=0)
    ids = torch.tensor(prompts)
    began = time.perf_counter()
    with torch.no_grad():
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
    return time.perf_counter() - began, found[:, ids.shape[1] :].tolist()


def _cells(row: Row) -> list[str]:
    return [
        str(row["batch_size"]),
        f"{1000 * row['round_trip_seconds']:.0f} ms",
        f"{row['tokens_per_second']:.1f}",
        f"{row['whole_tokens_per_second']:.1f}",
        f"{row['ratio']:.2f}",
        f"{row['split_seconds']:.2f}",
        f"{row['whole_seconds']:.2f}",
        f"{row['floor_seconds']:.2f}",
        f"{1000 * row['over_seconds_per_step']:.1f}",
        f"{row['bytes_per_token']:.0f}",
        f"{row['fp32_bytes_per_token']}",
    ]


if __name__ == "__main__":
    sys.exit(main())
