"""What a party's process is told about waiting, and that torch's thread runtime listens."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from splitlearn.party_environment import (
    KEPT_HEAP,
    LARGE_PAGES,
    PATIENT_WAITING,
    party_environment,
    silo_environment,
)

PROGRAM = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
FAULTS_OF_THE_SECOND = """
import resource
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytes(b"x") * (64 << 20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""A step's large tensors, as the allocator sees them: asked for, written, given back, asked for again."""


class TestPartyEnvironment:
    def test_adds_to_what_the_starter_has(self) -> None:
        assert party_environment({"PATH": "/bin"}) == {"PATH": "/bin", **PATIENT_WAITING, **LARGE_PAGES}

    def test_leaves_own_settings_alone(self) -> None:
        assert party_environment({"GOMP_SPINCOUNT": "5"})["GOMP_SPINCOUNT"] == "5"
        assert party_environment({"OMP_WAIT_POLICY": "ACTIVE"}) == {
            "OMP_WAIT_POLICY": "ACTIVE",
            **LARGE_PAGES,
        }
        assert party_environment({"THP_MEM_ALLOC_ENABLE": "0"})["THP_MEM_ALLOC_ENABLE"] == "0"

    def test_torchs_own_runtime_takes_it(self) -> None:
        torch = importlib.util.find_spec("torch")
        assert torch is not None
        assert torch.origin is not None
        runtime = Path(torch.origin).parent / "lib" / "libgomp.so.1"
        if not runtime.exists():
            pytest.skip("this torch build does not bring GCC's OpenMP")
        own = {key: value for key, value in os.environ.items() if key not in PATIENT_WAITING}  # noqa: TID251
        environment = party_environment({**own, "OMP_DISPLAY_ENV": "VERBOSE"})
        command = [sys.executable, "-c", PROGRAM, str(runtime)]
        shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
        assert f"GOMP_SPINCOUNT = '{PATIENT_WAITING['GOMP_SPINCOUNT']}'" in shown.stderr


class TestSiloEnvironment:
    def test_adds_to_a_partys_what_keeps_the_heap(self) -> None:
        assert silo_environment({"PATH": "/bin"}) == {**party_environment({"PATH": "/bin"}), **KEPT_HEAP}
        assert silo_environment({"MALLOC_ARENA_MAX": "4"})["MALLOC_ARENA_MAX"] == "4"

    @pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator has these settings")
    def test_memory_of_one_step_serves_the_next(self) -> None:
        command = [sys.executable, "-c", FAULTS_OF_THE_SECOND]
        environment = silo_environment(dict(os.environ))  # noqa: TID251
        shown = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
        first, second = map(int, shown.stdout.split())
        assert first > 0
        assert second < 64, "of 16,384 pages"
