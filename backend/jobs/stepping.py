"""Steps of many jobs, or sessions, of which each counts for itself."""

import uuid
from collections.abc import Callable, Iterable

import structlog

from splitlearn.errors import LinkError

_log = structlog.get_logger("backend.reconciler")


def step_each(
    ids: Iterable[uuid.UUID],
    step: Callable[[uuid.UUID], None],
    *,
    explain: Callable[[uuid.UUID, LinkError], None],
    what: str,
) -> bool:
    """Take a step of each; one that fails holds up no other.

    Args:
        ids: Whose steps.
        step: Takes one; raises LinkError where the broker took no task.
        explain: Told then whose.
        what: What they are, in the log.

    Returns:
        Whether the broker took all tasks.
    """
    is_broker_there = True
    for each in ids:
        try:
            step(each)
        except LinkError as error:
            _log.warning("dispatch_failed", **{what: str(each)}, reason=error.message)
            explain(each, error)
            is_broker_there = False
        except Exception:  # noqa: BLE001 - one that cannot be handled must not hold up all others
            _log.exception("step_failed", **{what: str(each)})
    return is_broker_there
