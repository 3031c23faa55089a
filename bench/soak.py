"""An hour (``--minutes``) of random faults on a whole platform that runs one job after another.

PostgreSQL and Redis of its own, API, gateway, worker and two agents (``bench.stage``), a tiny model in fp32.
After a pause of seconds and, mostly, a committed round a fault is drawn: a part is killed and started again,
several at once, or one is frozen for a while. What dies by itself is started again, as a process manager
would. Each job's result is compared bit for bit with that of the first job, which is let alone. Every minute
memory, open files, threads and the database's size are written down; the last table says how much of each
grew over the second half of the time.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.soak_faults import Fault, Progress, Weather
from bench.soak_growth import COLUMNS, Sample, growth, sample
from bench.stage import (
    ENDED,
    Finished,
    ServerAbsentError,
    Stage,
    StageInputs,
    make_inputs,
    own_postgresql,
    own_redis,
)
from bench.tables import json_path, positive, print_table, say, write_json
from splitlearn.errors import ProcessError, TrunklineError

_ABSENT, _INTERRUPTED = 2, 130
_SAMPLE_SECONDS = 60.0
_LOOK_SECONDS = 0.25
_ROUNDS, _STEPS_PER_ROUND = 4, 10
_UNDISTURBED_SECONDS = 1800.0
_STILL_SECONDS = 900.0
"""Without a committed round: longer than patience (300 s), a retry of everything, and a slow machine."""


@dataclass
class Season:
    """What happened.

    Attributes:
        same: Jobs whose result is the undisturbed job's.
        wrong: Ids of all others, with what they came to.
        faults: That were survived: a step was trained after each.
        samples: In order.
    """

    same: int = 0
    wrong: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code: 0 when every job's result was the same."""
    options = parse(arguments)
    season = Season()
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-soak-", ignore_cleanup_errors=True) as folder:
            _run(options, Path(folder), season)
    except KeyboardInterrupt:
        say("interrupted; every process has been ended and the temporary folder deleted")
        show(season)
        return _INTERRUPTED
    except ServerAbsentError as error:
        say(str(error))
        return _ABSENT
    except TrunklineError as error:
        show(season)
        say(error.message)
        return error.exit_code
    show(season)
    if options.json is not None:
        rows = [{"seed": options.seed, "minutes": options.minutes, **_totals(season)}]
        write_json(options.json, rows=[*rows, *season_rows(season)], machine=describe_machine(threads=1))
    return 0 if season.same and not season.wrong else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=positive, default=60, help="(default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults' kinds and times (default 0)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, folder: Path, season: Season) -> None:
    inputs = make_inputs(folder, rounds=_ROUNDS, steps_per_round=_STEPS_PER_ROUND)
    with own_postgresql() as database, own_redis() as broker:
        stage = Stage(folder / "stage", inputs, database=database, broker=broker)
        say("starting PostgreSQL, Redis, API, gateway, worker and two agents ...")
        with stage.running():
            undisturbed = stage.finish(stage.submit(inputs.job()), timeout_seconds=_UNDISTURBED_SECONDS)
            say("the first job, which was let alone, is done; faults from now on ...")
            weather = Weather(stage, random.Random(options.seed))  # noqa: S311 - repeatable, no secret
            _soak(stage, inputs, weather, undisturbed, season, seconds=60.0 * options.minutes)


def _soak(
    stage: Stage,
    inputs: StageInputs,
    weather: Weather,
    undisturbed: Finished,
    season: Season,
    *,
    seconds: float,
) -> None:
    began = sampled = time.monotonic()
    season.samples.append(sample(stage, minute=0.0))
    watch = _Watch(stage, stage.submit(inputs.job()))
    while True:
        now = time.monotonic()
        weather.look_after()
        season.faults = weather.survived
        if now - sampled >= _SAMPLE_SECONDS:
            sampled = now
            weather.calm()
            season.samples.append(sample(stage, minute=(now - began) / 60))
            _say_minute(season, weather, watch)
        if weather.is_calm:
            weather.see(watch.look())
        if weather.is_due and now - began <= seconds:  # then the last job may end
            weather.strike()
        elif weather.is_calm and watch.is_ended:
            _judge(stage, watch.job, undisturbed, season)
            if now - began > seconds:
                break
            watch = _Watch(stage, stage.submit(inputs.job()))
        time.sleep(_LOOK_SECONDS)
    season.faults = weather.survived
    season.samples.append(sample(stage, minute=(time.monotonic() - began) / 60))


class _Watch:
    """Looks how far a job is.

    Args:
        stage: The platform; everything that answers must run.
        job: Its id.
    """

    def __init__(self, stage: Stage, job: str) -> None:
        self._stage, self.job = stage, job
        self.is_ended = False
        self.rounds = 0
        self._moved_at = time.monotonic()

    def look(self) -> Progress:
        """Return how far it is.

        Raises:
            ProcessError: It has committed no round for fifteen minutes.
        """
        shown, now = self._stage.job(self.job), time.monotonic()
        self.is_ended = shown["state"] in ENDED
        if shown["rounds_committed"] != self.rounds:
            self.rounds, self._moved_at = shown["rounds_committed"], now
        if not self.is_ended and now - self._moved_at > _STILL_SECONDS:
            raise ProcessError(
                f"job {self.job}: no round within {_STILL_SECONDS:g} s after round {self.rounds}; it is "
                f"{shown['state']}: {shown['reason']}; logs in {self._stage.folder}/logs"
            )
        return Progress(self.job, self.rounds)


def _judge(stage: Stage, job: str, undisturbed: Finished, season: Season) -> None:
    try:
        found = stage.finish(job)
    except TrunklineError as error:
        season.wrong.append(f"{job}: {error.message}")
        say(season.wrong[-1])
        return
    if found == undisturbed:
        season.same += 1
    else:
        season.wrong.append(f"{job}: another result")
        say(season.wrong[-1])


def _say_minute(season: Season, weather: Weather, watch: _Watch) -> None:
    last = season.samples[-1]
    say(
        f"minute {last.minute:.0f}: {season.same} jobs the same, {len(season.wrong)} not, one after round "
        f"{watch.rounds}, {len(weather.survived)} faults survived; {last.describe()}"
    )


def _totals(season: Season) -> dict[str, Any]:
    return {"jobs_same": season.same, "jobs_not": season.wrong, "faults": len(season.faults)}


def season_rows(season: Season) -> list[dict[str, Any]]:
    """Return faults and growth for JSON."""
    kinds = Counter(fault.kind for fault in season.faults)
    slowest = {kind: _slowest(season, kind) for kind in kinds}
    faults = [
        {"fault": kind, "survived": number, "slowest_seconds": slowest[kind]}
        for kind, number in sorted(kinds.items())
    ]
    return [*faults, *({"part": row.part, **row.to_json()} for row in growth(season.samples))]


def _slowest(season: Season, kind: str) -> float:
    return max(fault.seconds for fault in season.faults if fault.kind == kind)


def show(season: Season) -> None:
    """Print the tables."""
    kinds = Counter(fault.kind for fault in season.faults)
    rows = [(kind, str(number), f"{_slowest(season, kind):.1f}") for kind, number in sorted(kinds.items())]
    print_table("Faults survived", ("fault", "times", "slowest to the next step, s"), rows)
    print_table("What is kept, and how it grew", COLUMNS, [row.cells() for row in growth(season.samples)])
    print_table("Jobs", ("the same bit for bit", "not"), [(str(season.same), str(len(season.wrong)))])
    for line in season.wrong:
        say(line)


if __name__ == "__main__":
    sys.exit(main())
