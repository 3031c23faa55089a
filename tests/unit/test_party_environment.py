"""What a party's process is told about waiting, and that torch's thread runtime listens."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitlearn.party_environment import LARGE_PAGES, PATIENT_WAITING, party_environment

PROGRAM = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


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
