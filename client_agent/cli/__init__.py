"""The command line ``trunkline-agent``. No command but a job's own process loads torch."""

from splitlearn.interruptible import interruptible

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    with interruptible("trunkline-agent"):
        from client_agent.cli.main import run  # noqa: PLC0415 - Ctrl-C is awaited while it loads

        run()
