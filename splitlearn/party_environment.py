"""The environment in which a party's process should be started: what only its starter can set.

**Waiting.** The two sides of a cut compute in turns. Where both live on one machine, the threads of the side
that waits must not burn the cores of the side that computes, and OpenMP's do: after every parallel loop they
expect the next one at any moment. GCC's runtime, which torch's Linux builds use, goes on spinning for 300,000
pauses: 2 ms where a pause takes 6 ns, 17 ms where it takes 140 cycles, at each of a step's four crossings.
LLVM's and Intel's, used elsewhere, spin for 200 ms. They read their settings when they are loaded, so a
process cannot set its own: whoever starts it does.

**Memory.** The logits of a silo's top block, and what the loss makes of them, are tens of megabytes that each
step allocates and gives back. The kernel hands them out again in pages of 4 KiB, 8,000 faults for 32 MiB.
Torch asks for large pages when it is told to, on Linux where whoever asks for them gets them. Where a machine
is itself a guest, clearing even those takes half of the top block's time; so the process of one silo's job,
which ends with the job, keeps what it has freed for its next step.
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
"""What :func:`party_environment` adds for threads that wait."""

LARGE_PAGES: Mapping[str, str] = MappingProxyType({"THP_MEM_ALLOC_ENABLE": "1"})
"""What it adds for tensors of 2 MiB and more."""

KEPT_HEAP: Mapping[str, str] = MappingProxyType(
    {
        # glibc maps what is larger than 32 MiB anew each time, whatever its threshold says; not if it may not
        # map at all. Then only the one heap that grows by brk takes such sizes, so all threads use that one.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_ARENA_MAX": "1",
        # Bytes that lie free at the heap's end before they go back to the system.
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    }
)
"""What :func:`silo_environment` adds for memory that is freed and asked for again in every step."""

_OWN_CHOICE = "OMP_WAIT_POLICY"


def party_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a new process that computes for a party: silo or trunk.

    Args:
        environment: The starter's own. What it already says is left alone.
    """
    waiting = {} if _OWN_CHOICE in environment else PATIENT_WAITING
    return {**LARGE_PAGES, **waiting, **environment}


def silo_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process that computes for a silo in one job, and ends with it.

    Args:
        environment: The starter's own. What it already says is left alone.
    """
    return {**KEPT_HEAP, **party_environment(environment)}
