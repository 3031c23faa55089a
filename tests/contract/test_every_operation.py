"""Schemathesis over the whole document, as each kind of caller: no failure of ours, nothing undocumented.

Every operation gets right and wrong values, half of them about things that exist.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.test_route_by_caller import CALLERS, DIGEST, Stage, _application
from tests.contract.test_route_by_caller import built_stage as built_stage  # noqa: PLC0414 - a fixture
from tests.unit.backend.cli.conftest import Listening
from tests.unit.backend.cli.conftest import listening as listening  # noqa: PLC0414 - a fixture

load_all_checks()
EXAMPLES = 6
LIKE_ANOTHER = {"auditor", "foreign_admin", "researcher"}
"""Callers who get an admin's answers or a refusal; the matrix of routes says which."""
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
AT_LEAST_SERVED = {
    "anonymous": 4,
    "agent": 8,
    "worker": 8,
    "researcher": 25,
    "auditor": 25,
    "admin": 40,
    "foreign_admin": 20,
}
OURS = 500  # our own failure; 503 and 507 are answers, where they are documented
PHASES = (Phase.explicit, Phase.generate)  # a failure is shown as it is: shrinking takes minutes


class Restored:
    """Puts the stage back as it was built, so that no operation meets what another has broken."""

    def __init__(self, built: tuple[Stage, Path, Path], listening: Listening) -> None:
        self.stage, self._path, self._snapshot = built
        self._listening = listening

    def __call__(self) -> None:
        self.stage.world.server.database.dispose()
        for old in self._path.parent.glob("trunkline.db*"):
            old.unlink()
        shutil.copy(self._snapshot, self._path)
        self._listening.serve(self.stage.world.server)


@pytest.fixture
def restore(built_stage: tuple[Stage, Path, Path], listening: Listening) -> Iterator[Restored]:
    yield Restored(built_stage, listening)
    built_stage[0].world.server.database.dispose()


def existing(stage: Stage, path: str) -> dict[str, Any]:
    """The values of a path's parameters that name what is there."""
    kind = "silo" if "/silos" in path else "worker"
    return {
        "name": "victim" if "/users" in path or "/members" in path else "north",
        "project": "default",
        "invitation_id": stage.ids[kind],
        "job_id": stage.ids["job"],
        "generation_id": stage.ids["generation"],
        "replica": 0,
        "digest": DIGEST.hex(),
    }


def ask_everything(
    operation: Any, stage: Stage, *, url: str, token: str | None
) -> tuple[list[int], list[str]]:
    """The answers of one operation to one caller, and what schemathesis finds wrong with them."""
    documented = {int(code) for code in operation.definition.raw["responses"]}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    found: list[str] = []
    statuses: list[int] = []

    @given(data=st.data())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,  # the same requests each time: what fails here fails again
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    def ask(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(schemathesis.GenerationMode))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()):
            known = existing(stage, operation.path)
            case.path_parameters = {
                name: known.get(name, value) for name, value in (case.path_parameters or {}).items()
            }
        answer = case.call(base_url=url, headers=headers, timeout=30)
        status = answer.status_code
        statuses.append(status)
        if status >= OURS and (status == OURS or status not in documented):
            found.append(f"{operation.label} {status}: {case.as_curl_command()}\n  {answer.text[:300]}")
            return
        try:
            case.validate_response(answer, checks=CHECKS)
        except FailureGroup as group:
            found.extend(f"{operation.label} {status}: {failure}" for failure in group.exceptions)

    ask()
    return statuses, list(dict.fromkeys(found))


@pytest.mark.slow
@pytest.mark.parametrize(
    "caller",
    [pytest.param(caller, marks=[pytest.mark.long] if caller in LIKE_ANOTHER else []) for caller in CALLERS],
)
def test_answers_as_documented(restore: Restored, listening: Listening, caller: str) -> None:
    stage = restore.stage
    restore()
    schema = schemathesis.openapi.from_dict(_application(stage.world).openapi())
    trouble: list[str] = []
    num_operations = num_served = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        restore()
        token = stage.callers[caller].token
        statuses, found = ask_everything(operation, stage, url=listening.url, token=token)
        trouble += found
        num_operations += 1
        num_served += any(status < 300 for status in statuses)
    assert num_operations == sum(map(len, _application(stage.world).openapi()["paths"].values()))
    assert not trouble, "\n".join(trouble)
    assert num_served >= AT_LEAST_SERVED[caller], f"{caller} got through to {num_served} only: ask better"
