"""``trunkline jobs``: submit, look, follow, end."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from backend.cli import results
from backend.cli.options import EPILOG_REMOTE, AsJson, group, is_id, is_whole_id
from backend.cli.output import REFUSED_EXIT_CODE, CommandError, show, show_rows
from backend.cli.remote import ClientSettings, Remote, path
from backend.db.models import JobState
from backend.organizations.service import FIRST_NAME
from splitlearn.spec import MAX_SPEC_BYTES

app = group(
    "jobs", f"Submit, follow and end jobs. {EPILOG_REMOTE}", example="trunkline jobs submit job.json --watch"
)

Project = Annotated[str, typer.Option(help="The project that the job belongs to.")]
SpecFile = Annotated[str, typer.Argument(help="A file with the specification in JSON; - for standard input.")]
_COLUMNS = ["id", "name", "state", "reason", "submitted_by", "created_at"]
_LOG_COLUMNS = ["at", "party", "level", "event", "code", "epoch", "round", "step", "seconds"]
_GENERATION_COLUMNS = ["id", "silo", "state", "reason", "worker", "num_tokens", "created_at", "ended_at"]
_PLACE_COLUMNS = ["worker", "device", "layers", "num_bytes", "free_bytes", "lacks"]
_SHOWN_APART = {"assumptions", "notes", "placements", "roles", "schedule"}
_ENDED = {"completed": 0, "failed": 11, "cancelled": REFUSED_EXIT_CODE}
_ALL = "all"
_PAUSE_SECONDS = 0.2
_STANDARD_INPUT = "-"
_FEWEST_CHARACTERS = 4


def _whole_id(text: str) -> str:
    """Return the id of the job that was meant by it, or by its first characters.

    Raises:
        CommandError: It is no such thing, no job's, or several jobs'.
    """
    begin = text.lower()
    if is_whole_id(text) or len(begin) < _FEWEST_CHARACTERS or not set(begin) <= set("0123456789abcdef-"):
        return is_id(text)
    found = [str(row["id"]) for row in _remote().rows("/jobs") if row["id"].startswith(begin)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} jobs' ids begin" if found else "no job's id begins"
    raise CommandError(f"{what} with {text!r}", remedy="type more of it; they are in: trunkline jobs list")


Job = Annotated[
    str, typer.Argument(help="The job's id, or its first characters, 4 or more.", callback=_whole_id)
]


@app.command("submit", epilog="Example: trunkline jobs submit job.json --watch")
def submit(
    spec: SpecFile,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    project: Project = FIRST_NAME,
    as_json: AsJson = False,
) -> None:
    """Submit a job; its silos are asked, then a worker takes it up."""
    job = _remote().call("POST", "/jobs", {"spec": _specification(spec), "project": project})
    show(job, as_json=as_json, text=f"{job['id']}  {_state(job)}")
    if not as_json:
        _show_notes(job)
    if watch:
        _follow(job["id"], as_json=as_json)


@app.command("plan", epilog="Example: trunkline jobs plan job.json")
def plan(spec: SpecFile, *, project: Project = FIRST_NAME, as_json: AsJson = False) -> None:
    """Tell what a job would take: seconds and bytes of a step, memory per role, who could host it."""
    found = _remote().call("POST", "/jobs/plan", {"spec": _specification(spec), "project": project})
    if as_json:
        show(found, as_json=True)
        return
    plain = [name for name in found if name not in _SHOWN_APART]
    show({"schedule": _schedule(found), **{name: found[name] for name in plain}}, as_json=False)
    for assumption in found["assumptions"]:
        typer.echo(f"assumed: {assumption}")
    _show_notes(found)
    show_rows(found["roles"], list(found["roles"][0]), as_json=False)
    show_rows(list(_places(found["placements"])), _PLACE_COLUMNS, as_json=False)


@app.command("list", epilog="Example: trunkline jobs list --state running")
def list_all(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs of this name.")] = None,
    silo: Annotated[str | None, typer.Option(help="Only jobs with this silo.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs, newest first."""
    filters = {"state": state.value if state else None, "name": name, "silo": silo}
    query = urlencode({key: value for key, value in filters.items() if value})
    rows = list(_remote().rows(f"/jobs?{query}" if query else "/jobs"))
    if not as_json:
        rows = [{**row, "reason": _reason(row)} for row in rows]
    show_rows(rows, _COLUMNS, as_json=as_json)


@app.command("show", epilog="Example: trunkline jobs show ID --json")
def show_one(job: Job, *, as_json: AsJson = False) -> None:
    """Show one job: its state and why, its silos, who hosts the trunk."""
    remote = _remote()
    found = remote.call("GET", path("jobs", job))
    if as_json:
        show(found, as_json=True)
        return
    plain = ("id", "name", "state", "submitted_by", "created_at")
    replicas = found["schedule"]["replicas"]
    hosted = "; ".join(_hosted(lease, replicas=replicas) for lease in found["leases"]) or "nobody"
    facts = {
        **{name: found[name] for name in plain},
        "rounds": f"{found['rounds_committed']} of {found['spec']['rounds']} committed",
        "since": found["state_since"],
        "schedule": _schedule(found),
        "why": _reason(found),
        "hosted by": hosted,
    }
    if (best := results.best_round(remote, found)) is not None:
        is_over = found["state"] in {"finishing", "completed"}
        facts["result of round" if is_over else "best round so far"] = best or "0: what the job began with"
    show(facts, as_json=False)
    show_rows(found["silos"], ["name", "dataset", "approval", "approval_reason", "finished"], as_json=False)


def _hosted(lease: dict[str, Any], *, replicas: int) -> str:
    what = ""
    if replicas > 1:  # the number after the last replica's stands for their average
        what = "the average by " if lease["replica"] == replicas else f"replica {lease['replica']} by "
    return f"{what}{lease['worker']}, epoch {lease['epoch']}, round {lease['round']}"


@app.command("results", epilog="Example: trunkline jobs results ID --json")
def show_results(
    job: Job,
    *,
    every_round: Annotated[
        bool, typer.Option("--every-round", help="Show all evaluations; round 0 is before training.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what each silo told of its held-out rows, and what its rows lost to truncation.

    Of the best round, where the job keeps that one; else of the last.
    """
    remote = _remote()
    found = results.results(remote, remote.call("GET", path("jobs", job)), every_round=every_round)
    if as_json:
        show_rows(found, results.COLUMNS, as_json=True)
        return
    shown = [*found, *results.overall(found)]
    show_rows([results.rounded(row) for row in shown], results.told_columns(found), as_json=False)
    if answers := list(results.answer_rows(found)):
        show_rows(answers, results.ANSWER_COLUMNS, as_json=False)


@app.command("generations", epilog="Example: trunkline jobs generations ID --end SESSION")
def generations(
    job: Job,
    *,
    end: Annotated[
        str | None, typer.Option(help="End the session of this id; its parties stop within seconds.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show in which sessions silos generated with a job's result, newest first; or end one."""
    remote = _remote()
    if end is not None:
        remote.call("POST", path("jobs", job, "generations", is_id(end), "end"))
    rows = list(remote.rows(path("jobs", job, "generations")))
    show_rows(rows, _GENERATION_COLUMNS, as_json=as_json)


@app.command("watch", epilog="Example: trunkline jobs watch ID")
def watch(job: Job, *, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit code 0: completed, 11: failed, 12: cancelled."""
    _follow(job, as_json=as_json)


@app.command("logs", epilog="Example: trunkline jobs logs ID --party silo:north")
def logs(
    job: Job,
    *,
    party: Annotated[
        str | None,
        typer.Option(help="What this party told: silo:NAME, worker:NAME, or all. Default: the job's events."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what has happened in a job so far, or what its parties told of their part in it."""
    if party is not None:
        query = "" if party == _ALL else f"?{urlencode({'party': party})}"
        rows = list(_remote().rows(path("jobs", job, "logs") + query))
        show_rows(rows, _LOG_COLUMNS, as_json=as_json)
        return
    for event in _remote().events(f"{path('jobs', job, 'events')}?follow=false"):
        _print_event(event, as_json=as_json)


@app.command("export", epilog="Example: trunkline jobs export ID --tensorboard runs/")
def export(
    job: Job,
    *,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write an event file into a folder below this one.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Make a run at this tracking server, for example http://host:5000.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hand a job's numbers to TensorBoard or MLflow."""
    from backend.cli import exporting  # noqa: PLC0415 - these libraries take a second to load

    if tensorboard is None and mlflow is None:
        raise CommandError(
            "nothing to export to", remedy="give --tensorboard DIR or --mlflow URI", exit_code=2
        )
    remote = _remote()
    found = remote.call("GET", path("jobs", job))
    told: dict[str, int] = {}
    if tensorboard is not None:
        rows = remote.numbers(path("jobs", job, "metrics"))
        told["tensorboard"] = exporting.to_tensorboard(found, exporting.scalars(rows), tensorboard)
    if mlflow is not None:
        rows = remote.numbers(path("jobs", job, "metrics"))
        told["mlflow"] = exporting.to_mlflow(found, exporting.scalars(rows), mlflow)
    text = ", ".join(f"{number} numbers to {where}" for where, number in told.items())
    show(told, as_json=as_json, text=f"exported {text}")


@app.command("cancel", epilog="Example: trunkline jobs cancel ID")
def cancel(job: Job, *, as_json: AsJson = False) -> None:
    """End a job; its parties stop within seconds."""
    _wish(job, "cancel", as_json=as_json)


@app.command("pause", epilog="Example: trunkline jobs pause ID")
def pause(job: Job, *, as_json: AsJson = False) -> None:
    """Pause a job at the end of its round."""
    _wish(job, "pause", as_json=as_json)


@app.command("resume", epilog="Example: trunkline jobs resume ID")
def resume(job: Job, *, as_json: AsJson = False) -> None:
    """Let a paused job go on."""
    _wish(job, "resume", as_json=as_json)


@app.command("retry", epilog="Example: trunkline jobs retry ID --round 3")
def retry(
    job: Job,
    *,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="The last round that counts; 0 begins anew.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a failed or cancelled job go on."""
    _wish(job, "retry", {"round": round_number}, as_json=as_json)


@app.command("clone", epilog="Example: trunkline jobs clone ID --changes '{\"rounds\": 8}'")
def clone(
    job: Job,
    *,
    changes: Annotated[str, typer.Option(help="A JSON merge patch on the specification.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Submit a job again, with changes."""
    _wish(job, "clone", {"changes": _parse(changes, "--changes")}, as_json=as_json)


def _show_notes(found: dict[str, Any]) -> None:
    for note in found["notes"]:
        typer.echo(f"note: {note}")


def _places(placements: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each range of layers at each worker, or for what a worker lacks."""
    for worker in placements:
        if worker["lacks"] is not None:
            yield {**dict.fromkeys(_PLACE_COLUMNS), "worker": worker["name"], "lacks": worker["lacks"]}
        for part in worker["layers"]:
            layers = f"{part['first_layer']} to {part['last_layer']}"
            sizes = {name: part[name] for name in ("num_bytes", "free_bytes")}
            yield {
                "worker": worker["name"],
                "device": part["device"],
                "layers": layers,
                **sizes,
                "lacks": None,
            }


def _schedule(found: dict[str, Any]) -> str:
    """Say how silos and trunk take turns, and why, where that was chosen."""
    schedule = found["schedule"]
    replicas = f", {schedule['replicas']} replicas" if schedule["replicas"] > 1 else ""
    why = "" if schedule["reason"] is None else f" ({schedule['asked']}: {schedule['reason']})"
    return f"{schedule['chosen']}{replicas}{why}"


def _remote() -> Remote:
    return Remote(ClientSettings())


def _wish(job: str, word: str, body: object = None, *, as_json: bool) -> None:
    found = _remote().call("POST", path("jobs", job, word), body)
    show(found, as_json=as_json, text=f"{found['id']}  {_state(found)}{_wanted(found)}")


def _wanted(job: dict[str, Any]) -> str:
    """Say what was noted, and is not so yet."""
    state, desired = job["state"], job["desired"]
    if desired == "run" or state in _ENDED or state == "paused":
        return ""
    when = " after this round" if (state, desired) == ("running", "pause") else ""
    return f"; wanted: {desired}{when}"


def _follow(job: str, *, as_json: bool) -> None:
    remote = _remote()
    number, state = 0, ""
    while state not in _ENDED:
        # The stream ends with the job, and also where the control plane is stopped.
        for event in remote.events(path("jobs", job, "events"), after=number):
            number = event["number"]
            _print_event(event, as_json=as_json)
            state = event["to"] if event["kind"] == "job_state" else state
        time.sleep(_PAUSE_SECONDS)
    raise typer.Exit(_ENDED[state])


def _print_event(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(event))
        return
    facts = {name: value for name, value in event.items() if name not in {"number", "kind", "job", "at"}}
    if event["kind"] == "job_state":
        text = f"{facts['to']}: {facts['who']} {facts['what']} ({facts['where']}); next: {facts['next']}"
    else:
        text = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in ("", None))
    typer.echo(f"{event['at'][:19]}  {event['kind']}  {text}")


def _state(job: dict[str, Any]) -> str:
    return f"{job['state']}: {_reason(job)}"


def _reason(job: dict[str, Any]) -> str:
    reason = job["reason"]
    return f"{reason['who']} {reason['what']}; next: {reason['next']}"


def _read(name: str) -> Any:
    if name == _STANDARD_INPUT:
        return _parse(sys.stdin.read(MAX_SPEC_BYTES), "standard input")
    try:
        return _parse(Path(name).read_text(encoding="utf-8"), name)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {name}: {error}", exit_code=2) from error


def _specification(name: str) -> Any:
    """Return the specification, also where it is wrapped as the API takes it."""
    content = _read(name)
    return content["spec"] if content.keys() == {"spec"} else content


def _refuse_constant(word: str) -> Any:
    """Refuse what Python reads and JSON does not have."""
    raise ValueError(f"it holds {word}, and numbers have to be finite")


def _parse(text: str, where: str) -> Any:
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise CommandError(f"{where} is no JSON: {error}", exit_code=2) from error
    if not isinstance(content, dict):
        raise CommandError(f"{where} holds no JSON object", exit_code=2)
    return content
