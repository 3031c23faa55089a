"""The entry point of ``trunkline worker``, which loads its libraries where Ctrl-C is awaited."""

from splitlearn.interruptible import interruptible


def main() -> int:
    """Run the command and return its exit code."""
    with interruptible("trunkline worker"):
        from worker.command import run_command  # noqa: PLC0415 - see the module's docstring

        return run_command()
