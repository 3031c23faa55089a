"""What do 1,000 silos' agents cost that wait for jobs? In CPU of the API and of PostgreSQL, and in memory.

A PostgreSQL server of the benchmark's own and one real API process are started. All agents are in this
process: each signs in with its own key, sends its heartbeat every 20 s, and asks for jobs by a question that
the API holds back for 20 s, as the product's agents do. Then jobs are submitted, one after another, each for
three of them: how long until each of the three knows? Agents, API and PostgreSQL share this machine's cores.

Then as many agents connect to a gateway and wait for their workers, and the workers come (as in
bench.gateway): what the gateway's memory grows by, for each.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from backend.bootstrap import FirstAdmin, start
from backend.db import Database, upgrade
from backend.db.models import Dataset, Organization, PartyStatus, Silo
from backend.gateway.process import allow_files
from backend.settings import Settings
from bench.api_process import api_process, cpu_seconds, make_settings
from bench.api_world import DATASET, make_first, make_spec, silo_name
from bench.fleet_agents import WAIT_SECONDS, Agent, Fleet, NoAnswerError
from bench.gateway import IDLE_COLUMNS, idle_cells, idle_row
from bench.machine import describe_machine
from bench.stage.servers import OwnServer, ServerAbsentError, own_postgresql
from bench.tables import Row, json_path, positive, print_table, say, write_json
from splitlearn.control_plane.session import HEARTBEAT_SECONDS
from splitlearn.errors import TrunklineError
from splitlearn.identity import CertificateKind, SigningKey
from splitlearn.wire import Limits

_INTERRUPTED = 130
_SETTLE_SECONDS = 10.0
_NEWS_SECONDS = 2.0
_NEWS_TIMEOUT_SECONDS = 120.0
_GATEWAY_TIMEOUT_SECONDS = 300.0
_ASKED = 3
"""Silos of each job."""
_PERCENT = 100
_COLUMNS = (
    "agents", "signed in in s", "cores: API", "PostgreSQL", "agents'", "answers/s", "API MiB",
    "KiB per agent",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = parse(arguments)
    allow_files(8 * options.agents)
    try:
        row = measure(options)
        _show(row)
        say(f"{options.agents} agents at a gateway ...")
        gateway = asyncio.run(_at_gateway(options.agents))
    except KeyboardInterrupt:
        say("interrupted")
        return _INTERRUPTED
    except (TrunklineError, ServerAbsentError) as error:
        say(f"error: {error}")
        return 1
    if gateway is not None:
        print_table("Connections at the gateway that only wait", IDLE_COLUMNS, [idle_cells(gateway)])
    if options.json is not None:
        rows = [row] if gateway is None else [row, gateway]
        write_json(options.json, rows=rows, machine=describe_machine(threads=1))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.fleet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--agents", type=positive, default=1000, help="that wait (default 1000)")
    parser.add_argument("--seconds", type=positive, default=60, help="of waiting, measured (default 60)")
    parser.add_argument("--news", type=positive, default=10, help="jobs submitted after it (default 10)")
    parser.add_argument("--json", type=json_path, metavar="PATH", help="write rows and machine there")
    options = parser.parse_args(arguments)
    if options.agents < _ASKED:
        parser.error(f"--agents: {options.agents} are fewer than the {_ASKED} silos of a job")
    return options


def measure(options: argparse.Namespace) -> Row:
    """Return what the agents cost, and how soon they know of a job.

    Raises:
        ServerAbsentError: PostgreSQL's programs are not on this machine.
        ProcessError: A process did not start, or the API refused an agent.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-bench-")))
        database = stack.enter_context(own_postgresql())
        settings = make_settings(folder, database.url)
        first, agents = _enrol(settings, options.agents)
        api = stack.enter_context(api_process(settings, folder))
        return asyncio.run(_measure(Fleet(settings.audience, agents), api.pid, database, first, options))


def _enrol(settings: Settings, number: int) -> tuple[FirstAdmin, list[Agent]]:
    """Make the database and its silos, with certificates of the federation's root."""
    empty = Database(settings.resolved_database_url)
    upgrade(empty)
    empty.dispose()
    server, first = start(settings)
    assert first is not None, "the database was empty"
    make_first(server)
    agents = [Agent(silo_name(each), SigningKey.generate()) for each in range(1, number + 1)]
    now = datetime.now(UTC)
    with server.database.write() as session:
        organization = session.scalars(select(Organization)).one()
        for agent in agents:
            certificate = server.authority.issue(
                agent.key.public_key, kind=CertificateKind.SILO, name=agent.name, now=now, days=1
            )
            assert certificate is not None, "the root is embedded"
            silo = Silo(
                name=agent.name,
                organization_id=organization.id,
                public_key=agent.key.public_key.raw,
                status=PartyStatus.ENROLLED,
                certificate=certificate.to_bytes(),
                serial=str(certificate.serial),
                enrolled_at=now,
            )
            session.add(silo)
            session.flush()
            session.add(
                Dataset(
                    silo_id=silo.id,
                    name=DATASET,
                    task="any",
                    num_rows=1000,
                    schema_digest=bytes(32),
                    announced_at=now,
                )
            )
    server.database.dispose()
    return first, agents


async def _measure(
    fleet: Fleet, api: int, database: OwnServer, first: FirstAdmin, options: argparse.Namespace
) -> Row:
    process = psutil.Process(api)
    async with fleet:
        say(f"{len(fleet.agents)} agents sign in ...")
        start_bytes = process.memory_info().rss
        person = await _sign_in(fleet, first)
        signed_in = await fleet.sign_in()
        fleet.begin()
        await asyncio.sleep(_SETTLE_SECONDS)
        fleet.seconds.pop("heartbeat", None)
        say(f"they wait for {options.seconds} s ...")
        before, answers, began = _cpu(api, database), fleet.num_answers, time.perf_counter()
        await asyncio.sleep(options.seconds)
        fleet.check()
        seconds = time.perf_counter() - began
        cores = {name: (value - before[name]) / seconds for name, value in _cpu(api, database).items()}
        per_second = (fleet.num_answers - answers) / seconds
        waiting_bytes = process.memory_info().rss
        say(f"{options.news} jobs are submitted ...")
        news = await _news(fleet, person, options.news)
        fleet.check()
    return {
        "agents": len(fleet.agents),
        "sign_in_seconds": signed_in,
        "answers_per_second": per_second,
        "wanted_per_second": len(fleet.agents) * (1 / HEARTBEAT_SECONDS + 1 / WAIT_SECONDS),
        "unanswered": fleet.num_unanswered,
        "news_told": len(news),
        "news_wanted": _ASKED * options.news,
        **{f"{name}_cores": value for name, value in cores.items()},
        "api_start_bytes": start_bytes,
        "api_waiting_bytes": waiting_bytes,
        "sign_in_each": _percentiles(fleet.seconds["sign-in"]),
        "heartbeat": _percentiles(fleet.seconds["heartbeat"]),
        "news": _percentiles(news),
    }


async def _at_gateway(number: int) -> Row | None:
    """Return what agents cost at a gateway; None where they are not all there before the first give up."""
    try:
        async with asyncio.timeout(_GATEWAY_TIMEOUT_SECONDS):
            return await idle_row(number, Limits().max_frame_bytes)
    except TimeoutError:
        say(f"not all were at the gateway within {_GATEWAY_TIMEOUT_SECONDS:g} s: this machine is too busy")
        return None


async def _sign_in(fleet: Fleet, first: FirstAdmin) -> str:
    """Sign the first admin in; return the token."""
    body = {"name": first.name, "password": first.password}
    token: str = (await fleet.call("POST", "/sign-in", body=body))["token"]
    return token


async def _news(fleet: Fleet, token: str, number: int) -> list[float]:
    """Submit jobs; return how long after each answer each of its silos knew, as far as they came to know.

    An API that has too much to do tells late, or not at all: that ends the questions, and is no failure of
    the benchmark, which says how many were told.

    Raises:
        ProcessError: The API refused one.
    """
    late: list[float] = []
    with suppress(NoAnswerError, TimeoutError):
        await _tell_news(fleet, token, number, late)
    return late


async def _tell_news(fleet: Fleet, token: str, number: int, late: list[float]) -> None:
    for each in range(number):
        asked = [1 + (each * _ASKED + offset) % len(fleet.agents) for offset in range(_ASKED)]
        job = await fleet.call("POST", "/jobs", token=token, body={"spec": make_spec(asked)})
        begin = time.perf_counter()
        async with asyncio.timeout(_NEWS_TIMEOUT_SECONDS):
            for silo in asked:
                await fleet.agents[silo - 1].knows(job["id"])
                late.append(max(0.0, fleet.agents[silo - 1].seen[job["id"]] - begin))
        await asyncio.sleep(_NEWS_SECONDS)


def _cpu(api: int, database: OwnServer) -> Mapping[str, float]:
    return {
        "api": cpu_seconds(api),
        "postgresql": cpu_seconds(database.pid),
        "agents": sum(os.times()[:2]),
    }


def _percentiles(values: Sequence[float]) -> dict[str, Any]:
    if len(values) < 2:  # noqa: PLR2004 - of one value there is no median
        return {"number": len(values), "median_seconds": None, "99th_seconds": None}
    cuts = statistics.quantiles(values, n=_PERCENT, method="inclusive")
    return {"number": len(values), "median_seconds": cuts[49], "99th_seconds": cuts[98]}


def _show(row: Row) -> None:
    each = (row["api_waiting_bytes"] - row["api_start_bytes"]) / row["agents"] / 1024
    print_table(
        "Agents that wait for jobs",
        _COLUMNS,
        [
            (
                str(row["agents"]),
                f"{row['sign_in_seconds']:.1f}",
                *(f"{row[f'{name}_cores']:.3f}" for name in ("api", "postgresql", "agents")),
                f"{row['answers_per_second']:.0f} of {row['wanted_per_second']:.0f}",
                f"{row['api_waiting_bytes'] / (1 << 20):.0f}",
                f"{each:.0f}",
            )
        ],
    )
    print_table(
        "How long they wait for answers",
        ("what", "number", "median ms", "99th ms"),
        [
            (
                name,
                str(row[key]["number"]),
                *(_milliseconds(row[key][f"{of}_seconds"]) for of in ("median", "99th")),
            )
            for name, key in (
                ("sign-in", "sign_in_each"),
                ("heartbeat", "heartbeat"),
                ("until a silo knows of a job", "news"),
            )
        ],
    )
    say(
        f"{row['news_told']} of {row['news_wanted']} silos were told of their job in time; "
        f"{row['unanswered']} questions were not answered"
    )


def _milliseconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1000 * seconds:.0f}"


if __name__ == "__main__":
    sys.exit(main())
