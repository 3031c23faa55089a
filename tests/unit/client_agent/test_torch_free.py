"""The part that stays up is small: it loads no torch, and neither do the commands."""

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


class TestImport:
    def test_of_supervisor_and_commands_needs_no_torch(self) -> None:
        program = BLOCKED + "import client_agent.cli.main, client_agent.supervisor"
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, check=False, timeout=60, capture_output=True)  # noqa: S603 - our own
        assert done.returncode == 0, done.stderr.decode()
