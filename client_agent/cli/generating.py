"""``trunkline-agent generate``: ask a job's result, whose trunk stays at a worker."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from client_agent.cli.options import DEFAULT_STATE_DIR, AsJson, StateDir, resolved
from client_agent.cli.output import PROGRAM
from client_agent.generation_prompts import Prompt, Wanted, WantedError, read_prompt_file, read_prompts
from client_agent.generation_session import joined
from client_agent.job_record import JobRecord
from client_agent.places import AgentFolder, JobFolder, UnknownJobError
from splitlearn.control_plane.client import PartyClient
from splitlearn.control_plane.requests import Absent, Back
from splitlearn.control_plane.state_folder import StateFolder
from splitlearn.simulation.exit_codes import TERMINATED, UNREAD

if TYPE_CHECKING:
    from client_agent.generating import Answer, Totals

EPILOG = 'Example: trunkline-agent generate reviews --prompt "The film was" --max-new-tokens 40'
_STANDARD_INPUT = "-"


def generate(
    job: Annotated[
        str, typer.Argument(help="The job's id, how it begins, or its name where one job has it.")
    ],
    *,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="A prompt; may be given again. - reads one from standard input."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="PATH",
            help="JSON lines: strings, or objects with prompt or messages. - reads standard input.",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, help="Draw tokens at random; below 1, likelier ones more. Default: the likeliest."
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw among so many likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw among the likeliest that reach this probability.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    chat: Annotated[bool, typer.Option("--chat", help="Write prompts by the model's chat template.")] = False,
    batch_size: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Prompts answered at once; fewer where the worker lacks room."),
    ] = 8,
    wait: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for a worker.")
    ] = 60,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, envvar="TRUNKLINE_AGENT_THREADS", help="Of this process."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(envvar="TRUNKLINE_AGENT_DEVICE", help="Where this silo's layers are computed."),
    ] = "auto",
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: AsJson = False,
) -> None:
    """Answer prompts with a job's result: this silo's layers here, the trunk at a worker.

    Texts, tokens and the choice of tokens stay here; hidden states cross, sealed. One answer is shown as it
    comes, several batch by batch. Works beside an agent that runs, and without one.
    """
    wanted = Wanted(
        prompts=_prompts(prompt or [], file),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        is_chat=chat,
        batch_size=batch_size,
        wait_seconds=wait,
    )
    folder = AgentFolder(resolved(state_dir))
    state = StateFolder(folder.path)
    state.enrolled()
    found = find_job(folder, job)
    listener = _Json() if as_json else _Texts(num_prompts=len(wanted.prompts))
    try:
        totals = asyncio.run(_generate(state, found, wanted, listener, threads=threads, device=device))
    except asyncio.CancelledError:
        raise SystemExit(TERMINATED) from None  # Ctrl-C is a KeyboardInterrupt: whoever called us knows it
    except BrokenPipeError:
        # What Python has not written yet would fail once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(UNREAD) from None
    listener.total(totals)


def find_job(folder: AgentFolder, word: str) -> JobFolder:
    """Return the one job whose id begins with a word, or whose name it is.

    Raises:
        UnknownJobError: None is, or several are.
    """
    jobs = folder.jobs()
    by_id = [job for job in jobs if job.job_id.startswith(word)]
    if len(by_id) == 1:
        return by_id[0]
    records = {job: JobRecord.read(job.record) for job in jobs}
    by_name = [job for job, record in records.items() if record is not None and record.name == word]
    if len(by_name) == 1:
        return by_name[0]
    if by_id or by_name:
        what = f"several jobs are called {word!r} or have ids that begin so"
    else:
        what = f"no job is called {word!r} or has an id that begins so"
    raise UnknownJobError(
        f"{what} in {folder.path}; trunkline-agent status lists the jobs that are kept here, which are those "
        "that this silo takes part in"
    )


async def _generate(
    state: StateFolder,
    job: JobFolder,
    wanted: Wanted,
    listener: "_Texts | _Json",
    *,
    threads: int | None,
    device: str,
) -> "Totals":
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    async with joined(state, on_reach=_say_reach) as session:
        # Not before: these commands start in no time, and are refused in no time.
        import torch  # noqa: PLC0415

        from client_agent import generating  # noqa: PLC0415

        if threads is not None:
            torch.set_num_threads(threads)
        return await generating.generate(
            PartyClient(session), state=state, job=job, wanted=wanted, listener=listener, device=device
        )


def _prompts(given: list[str], file: str | None) -> list[Prompt]:
    if bool(given) == (file is not None):
        raise WantedError("give either --prompt, as often as you like, or --file")
    if file is not None:
        if file == _STANDARD_INPUT:
            return read_prompts(sys.stdin, source="standard input")
        return read_prompt_file(Path(file).expanduser())
    if given.count(_STANDARD_INPUT) > 1:
        raise WantedError("--prompt - was given twice; standard input is read once")
    return [Prompt(sys.stdin.read().rstrip("\n") if text == _STANDARD_INPUT else text) for text in given]


class _Texts:
    """Shows answers to people: one as it comes, several one after another; numbers on standard error."""

    def __init__(self, *, num_prompts: int) -> None:
        self._num_prompts = num_prompts

    def piece(self, text: str) -> None:
        """Show what is new of the one answer."""
        _write(text)

    def answer(self, answer: "Answer") -> None:
        """Show an answer that is whole, under its number where there are several."""
        if self._num_prompts == 1:
            _write("\n")
        else:
            _write(f"--- {answer.index + 1}\n{answer.text}\n")

    def began_anew(self) -> None:
        """Say that the worker was lost."""
        _say("the worker was lost, or is needed elsewhere; what was under way begins anew")

    def differs(self) -> None:
        """Say that what was shown does not count."""
        _write("\n")
        _say("the answer came out otherwise at the other worker; here it is from its beginning")

    def total(self, totals: "Totals") -> None:
        """Say how much it was."""
        speed = _per(totals.num_tokens, totals.seconds)
        crossed = _per(totals.num_bytes, totals.num_crossed)
        _say(
            f"{totals.num_tokens} tokens in {totals.seconds:.1f} s, {speed:.1f} tokens/s; "
            f"{totals.num_bytes} bytes crossed, {crossed:.0f} per token"
        )


class _Json:
    """Prints a JSON object for each answer, and one at the end for all."""

    def piece(self, text: str) -> None:
        """Wait for the whole answer."""

    def answer(self, answer: "Answer") -> None:
        """Print an answer."""
        fields = asdict(answer)
        _write(_line({**fields, "seconds": round(answer.seconds, 6)}))

    def began_anew(self) -> None:
        """Say that the worker was lost."""
        _say("the worker was lost, or is needed elsewhere; what was under way begins anew")

    def differs(self) -> None:
        """Nothing was printed that does not count."""

    def total(self, totals: "Totals") -> None:
        """Print how much it was."""
        rates = {
            "tokens_per_second": round(_per(totals.num_tokens, totals.seconds), 3),
            "bytes_per_token": round(_per(totals.num_bytes, totals.num_crossed), 3),
        }
        _write(_line({"total": {**asdict(totals), "seconds": round(totals.seconds, 6), **rates}}))


def _per(amount: float, count: float) -> float:
    return amount / count if count else 0.0


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(sentence: str) -> None:
    typer.echo(f"{PROGRAM}: {sentence}", err=True)


def _say_reach(word: Absent | Back) -> None:
    if isinstance(word, Absent):
        _say(f"{word.sentence}; asking again")
