"""``trunkline up``: the whole platform on this machine."""

import json
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from backend.cli.options import AsJson
from backend.cli.output import USAGE_EXIT_CODE, CommandError
from backend.settings import Settings
from splitlearn.processes import free_port

if TYPE_CHECKING:
    from backend.embedded import Stack, UpOptions

DEFAULT_GATEWAY_PORT = 8471
EPILOG = "Example: trunkline up --models-from ~/models --workers 1"


def up(
    *,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder of everything that is kept. [dim]Default: ~/.trunkline[/dim]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address that API and gateway listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the API; 0 takes a free one. Default: 8470")
    ] = None,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the gateway; 0 takes a free one.")
    ] = DEFAULT_GATEWAY_PORT,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Workers on this machine.")] = 1,
    device: Annotated[
        str, typer.Option(help="Device of the workers: auto, cpu, cuda, cuda:1, mps.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads of each worker. Default: all cores")
    ] = None,
    models_from: Annotated[
        list[Path] | None,
        typer.Option(help="Folder below which model folders may be registered; may be given again."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start control plane, gateway and workers, each its own process; Ctrl-C stops all of it."""
    from backend.embedded import Stack  # noqa: PLC0415 - the web framework takes a second to load

    worker_arguments = ("--device", device, *(("--threads", str(threads)) if threads else ()))
    options = _options(
        state_dir=state_dir,
        host=host,
        port=port,
        gateway_port=gateway_port,
        workers=workers,
        worker_arguments=worker_arguments,
        models_from=models_from or [],
    )
    stack = Stack(options, say=_say)
    with _Ending(stack) as ending, stack.running():
        _tell(stack, as_json=as_json)
        stack.watch(ending.asked)
        _say("stopping all of it")


def _options(  # each argument is one flag
    *,
    state_dir: Path | None,
    host: str,
    port: int | None,
    gateway_port: int,
    workers: int,
    worker_arguments: tuple[str, ...],
    models_from: list[Path],
) -> "UpOptions":
    from backend.embedded import UpOptions  # noqa: PLC0415 - see up()

    given: dict[str, Any] = {"host": host}
    if state_dir is not None:
        given["state_dir"] = state_dir
    if port is not None:
        given["port"] = port or free_port(host)
    settings = Settings(**given)
    if gateway_port == settings.port:
        raise CommandError(
            f"API and gateway cannot both listen on port {gateway_port}",
            remedy="give each its own: --port, --gateway-port",
            exit_code=USAGE_EXIT_CODE,
        )
    for folder in models_from:
        if not folder.is_dir():
            raise CommandError(
                f"{folder} is no folder", remedy="correct --models-from", exit_code=USAGE_EXIT_CODE
            )
    environment = dict(os.environ)  # noqa: TID251 - the entry point; the parts read their own settings from it
    if models_from:
        environment["TRUNKLINE_MODEL_SOURCES"] = os.pathsep.join(str(path.absolute()) for path in models_from)
    return UpOptions(
        settings=settings,
        gateway_port=gateway_port or free_port(host),
        workers=workers,
        worker_arguments=worker_arguments,
        environment=environment,
    )


class _Ending:
    """Listens to Ctrl-C, SIGTERM and the terminal's end: the first asks for the end, the second kills."""

    def __init__(self, stack: "Stack") -> None:
        self.asked = threading.Event()
        self._stack = stack
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _receive(self, _signum: int, _frame: FrameType | None) -> None:
        if self.asked.is_set():
            self._stack.kill()
        self.asked.set()


def _tell(stack: "Stack", *, as_json: bool) -> None:
    places, admin = stack.places, stack.first_admin
    if as_json:
        typer.echo(json.dumps(stack.describe()))
        return
    typer.echo(f"Trunkline is up: {places.url} (documentation at /docs)")
    if admin is not None:
        typer.echo(f"  first start: user {admin.name}, password {admin.password}")
        typer.echo("    shown only now; change it by: POST /api/v1/me/password")
    typer.echo(f"  federation root: {stack.fingerprint} (what silos pin)")
    typer.echo(f"  parts: {', '.join(stack.pids)}; logs in {places.logs}")
    typer.echo(f"Next: export TRUNKLINE_URL={places.url} TRUNKLINE_TOKEN=$(trunkline tokens sign-in admin)")
    typer.echo("      trunkline silos invite NAME")
    typer.echo("Ctrl-C stops all of it.")


def _say(sentence: str) -> None:
    typer.echo(sentence, err=True)
