"""``trunkline-agent enroll`` and ``status``: who this silo is, and how it stands."""

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, AsJson, StateDir, resolved
from client_agent.cli.output import show, show_json, show_rows
from client_agent.data import DatasetRegistry
from client_agent.job_record import JobRecord
from client_agent.places import AgentFolder
from splitlearn.control_plane.admission import FederationAnswer
from splitlearn.control_plane.enrolment import enrol
from splitlearn.control_plane.errors import FolderInUseError, RefusedError, UnreachableError
from splitlearn.control_plane.expiry import ending_sentence
from splitlearn.control_plane.requests import Absent, Back, Requests
from splitlearn.control_plane.rotation import rotate_key
from splitlearn.control_plane.state_folder import Membership, StateFolder
from splitlearn.identity import CertificateKind, Fingerprint

ENROLL_EPILOG = "Example: trunkline-agent enroll - < invitation.txt"
_PATIENCE_SECONDS = 20.0
_MAX_INVITATION_CHARACTERS = 4096
_STANDARD_INPUT = "-"


def enroll(
    invitation: Annotated[
        str,
        typer.Argument(
            help="The invitation's text, or - to read it from standard input, where nobody sees it."
        ),
    ],
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until a person with the offline root has signed.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Join a federation by an invitation; once. The same command again finishes what was begun."""
    text = sys.stdin.read(_MAX_INVITATION_CHARACTERS) if invitation == _STANDARD_INPUT else invitation
    state = StateFolder(resolved(state_dir))
    with state.locked():
        membership = asyncio.run(
            enrol(
                text,
                state,
                kind=CertificateKind.SILO,
                wait=wait,
                on_reach=_say_reach,
                patience_seconds=None if wait else _PATIENCE_SECONDS,
            )
        )
    facts = _facts(state, membership)
    show(facts, as_json=as_json, text=f"enrolled as silo {membership.name!r} at {membership.url}")


def rotate(
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until a person with the offline root has signed.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Take a new key; the agent may run meanwhile, and its jobs go on. The old key is refused afterwards."""
    state = StateFolder(resolved(state_dir))
    certificate = asyncio.run(
        rotate_key(
            state, wait=wait, on_reach=_say_reach, patience_seconds=None if wait else _PATIENCE_SECONDS
        )
    )
    until = certificate.not_after.isoformat()
    show(_facts(state, state.enrolled()), as_json=as_json, text=f"the new key is certified until {until}")


def status(*, state_dir: StateDir = DEFAULT_STATE_DIR, as_json: AsJson = False) -> None:
    """Show identity, control plane, data sets and jobs."""
    path = resolved(state_dir)
    state = StateFolder(path)
    membership = state.membership()
    facts: dict[str, Any] = {"state_dir": str(path), "enrolled": False}
    if membership is not None:
        facts |= _facts(state, membership)
        facts |= {"control_plane": asyncio.run(_reach(membership)), "agent": _agent(state)}
    jobs = _jobs(path)
    datasets = [dataset.name for dataset in DatasetRegistry(path).all()]
    if as_json:
        show_json({**facts, "datasets": datasets, "jobs": jobs})
        return
    show({**facts, "datasets": ", ".join(datasets) or "none"}, as_json=False)
    if jobs:
        typer.echo()
        # Not the control plane's state: it tells an agent no more of a job once the silo's part is done.
        show_rows(jobs, ["id", "name", "dataset", "phase", "message"], as_json=False)


def _facts(state: StateFolder, membership: Membership) -> dict[str, Any]:
    if membership.certificate is None:
        return {"silo": membership.name, "url": membership.url, "enrolled": False, "certificate_until": None}
    certificate = state.identity().certificate
    return {
        "silo": membership.name,
        "url": membership.url,
        "enrolled": True,
        "certificate_until": certificate.not_after.isoformat(),
        "certificate_warning": ending_sentence(certificate, now=datetime.now(tz=UTC)),
        "root": str(Fingerprint.of(state.trust().root_public_key)),
    }


def _agent(state: StateFolder) -> str:
    try:
        with state.locked():
            return "is not running"
    except FolderInUseError:
        return "runs"


async def _reach(membership: Membership) -> str:
    requests = Requests(membership.url)
    try:
        await requests.ask("GET", "/federation", FederationAnswer, patience_seconds=0)
    except (RefusedError, UnreachableError) as error:
        return error.message
    finally:
        await requests.close()
    return "answers"


def _jobs(path: Path) -> list[dict[str, Any]]:
    records = (JobRecord.read(job.record) for job in AgentFolder(path).jobs())
    found = [record for record in records if record is not None]
    return [record.model_dump(mode="json") for record in sorted(found, key=lambda record: record.updated_at)]


def _say_reach(word: Absent | Back) -> None:
    if isinstance(word, Absent):
        typer.echo(f"{word.sentence}; asking again", err=True)
