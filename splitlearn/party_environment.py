"""The environment in which a party's process should be started, for its thread pools to wait politely.

The two sides of a cut compute in turns. Where both live on one machine, the threads of the side that waits
must not burn the cores of the side that computes, and OpenMP's do: after every parallel loop they expect
the next one at any moment. GCC's runtime, which torch's Linux builds use, goes on spinning for 300,000
pauses: 2 ms where a pause takes 6 ns, 17 ms where it takes 140 cycles, at each of a step's four crossings.
LLVM's and Intel's, used elsewhere, spin for 200 ms.

They read their settings when they are loaded, so a process cannot set its own: whoever starts it does.
"""

from collections.abc import Mapping
from types import MappingProxyType

PATIENT_WAITING: Mapping[str, str] = MappingProxyType(
    {
        # A tenth of the default, not 0: within one computation the next loop comes after tens of
        # microseconds, a step has a thousand of them, and waking a thread takes longer than that.
        "GOMP_SPINCOUNT": "30000",
        # For libomp and libiomp5, in milliseconds.
        "KMP_BLOCKTIME": "1",
    }
)
"""What :func:`party_environment` adds."""

_OWN_CHOICE = "OMP_WAIT_POLICY"


def party_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a new process that computes for a party: silo or trunk.

    Args:
        environment: The starter's own. What it already says about waiting is left alone.
    """
    if _OWN_CHOICE in environment:
        return dict(environment)
    return {**PATIENT_WAITING, **environment}
