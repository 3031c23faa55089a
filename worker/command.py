"""``trunkline worker`` as it is typed: one process, for one device or several."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from splitlearn.errors import TrunklineError
from splitlearn.interruptible import loading
from splitlearn.option_errors import TellingCommand
from splitlearn.setting_errors import setting_sentences

_EPILOG = "Example: trunkline worker --invitation TEXT --device cuda:0"
_USAGE = 2
_PROGRAM = "trunkline worker"
_STUCK = "stuck"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(name="worker", epilog=_EPILOG, cls=TellingCommand)
def worker(
    *,
    invitation: Annotated[
        str | None,
        typer.Option(
            help="Text of an invitation, at the first start; or TRUNKLINE_WORKER_INVITATION, which others "
            "on this machine cannot read."
        ),
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Key and caches; one folder per worker. Default: ~/.trunkline-worker")
    ] = None,
    rotate_key: Annotated[
        bool,
        typer.Option(
            "--rotate-key", help="Take a new key and end; the worker may run meanwhile, and its jobs go on."
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:1 or mps; or several with commas (cuda:0,cuda:1), over which a trunk "
            "is laid that is too large for one. Default: auto"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of the processor. Default: all cores")
    ] = None,
    broker_url: Annotated[
        str | None, typer.Option(help="redis://host:6379/0, as the control plane's. Default: a folder")
    ] = None,
    broker_dir: Annotated[
        Path | None, typer.Option(help="That folder: the control plane's. Default: ~/.trunkline/broker")
    ] = None,
) -> None:
    """Host trunks on one device of this machine, or over several; connects outward only."""
    with loading(_PROGRAM):  # torch takes seconds, which --help need not wait for
        from worker.log import configure_logging  # noqa: PLC0415 - see above
        from worker.settings import Settings  # noqa: PLC0415 - see above

    given: dict[str, Any] = {
        "invitation": invitation,
        "state_dir": state_dir,
        "device": device,
        "threads": threads,
        "broker_url": broker_url,
        "broker_dir": broker_dir,
    }
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    configure_logging(settings.log_format)
    if rotate_key:
        with loading(_PROGRAM):
            from worker.rotation import rotate  # noqa: PLC0415 - see above

        rotate(settings.state_dir)
        return
    with loading(_PROGRAM):
        from worker.process import run  # noqa: PLC0415 - see above

    run(settings)


def run_command() -> int:
    """Run it; every error is a sentence and an exit code.

    Raises:
        SystemExit: With the code, where the command line was wrong, or the command has said how it ends.
    """
    try:
        app(prog_name=_PROGRAM)
    except TrunklineError as error:
        _complain(error.message)
        if error.code == _STUCK:
            os._exit(error.exit_code)  # the interpreter would wait for the thread that does not come back
        return error.exit_code
    except ValidationError as error:
        from worker.settings import Settings  # noqa: PLC0415 - see worker()

        for sentence in setting_sentences(error, Settings):
            _complain(sentence)
        return _USAGE
    return 0


def _complain(sentence: str) -> None:
    sys.stderr.write(f"{_PROGRAM}: {sentence}\n")
    sys.stderr.flush()
