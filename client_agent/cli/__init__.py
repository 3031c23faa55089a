"""The command line ``trunkline-agent``. No command but a job's own process loads torch."""

from client_agent.cli.main import run as main

__all__ = ["main"]
