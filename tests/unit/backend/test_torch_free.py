"""The control plane runs where torch is not installed, and no command loads what it does not need."""

import subprocess
import sys

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def _run(program: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=False, timeout=60, capture_output=True)  # noqa: S603 - our own


class TestImport:
    def test_of_the_application_needs_no_torch(self) -> None:
        program = BLOCKED + "import backend.app, backend.bootstrap, backend.cli"
        result = _run(program)
        assert result.returncode == 0, result.stderr.decode()

    def test_of_the_command_line_loads_no_web_framework(self) -> None:
        result = _run(
            "import backend.cli.main, sys; sys.exit(bool({'fastapi', 'uvicorn'} & set(sys.modules)))"
        )
        assert result.returncode == 0, "it takes a second, at every command"

    def test_of_torch_is_really_blocked_there(self) -> None:
        result = _run(BLOCKED + "import torch")
        assert b"torch is blocked" in result.stderr
