"""``trunkline-agent generate`` on a real platform: a job's result answers, its trunk at a worker."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from splitlearn.generation import end_tokens
from splitlearn.processes import Child
from splitlearn.simulation.tiny_models import build_tiny_model
from splitlearn.tasks import encode_texts, load_tokenizer
from tests.integration.test_agent_process import ROWS, SIZE, Agent, job_spec
from tests.integration.worker_stage import Stage, staged

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

SILENCE_SECONDS = 5.0
PATIENCE_SECONDS = 120.0  # on a machine with other things to do
PROMPTS = ("note 3: the patient", "note 27: the patient of bed 11 slept", "the", "bed 4 slept well note")
NUM_NEW = 12
CONTEXT_TOKENS = 16384  # more than the worker keeps, so that its own limit is met, too


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [row["text"] for row in ROWS]
    size = replace(SIZE, max_positions=CONTEXT_TOKENS)
    return build_tiny_model("tiny-llama", texts=texts, cache=tmp_path_factory.mktemp("model"), size=size)


@dataclass
class Platform:
    """Control plane, gateway, worker, and the agents of two silos whose job has completed."""

    stage: Stage
    model: Path
    folder: Path
    stack: ExitStack
    agents: dict[str, Agent]
    job_id: str = ""
    worker: Child | None = None

    def restart_worker(self) -> None:
        self.worker = self.stage.new_worker()
        self.worker.start()

    def stop_worker(self) -> None:
        if self.worker is not None:
            self.worker.stop()

    def generate(self, silo: str, *words: str, job: str = "", standard_input: str = "") -> Any:
        return self.agents[silo].command(
            "generate", job or self.job_id, "--threads", "1", *words, standard_input=standard_input
        )

    def begin(self, silo: str, *words: str) -> "Begun":
        begun = Begun(
            [sys.executable, "-m", "client_agent", "generate", self.job_id, "--threads", "1", *words],
            environment=self.agents[silo]._environment,
            errors=self.folder / f"errors-{time.monotonic_ns()}",
        )
        self.stack.callback(begun.end)
        return begun

    def sessions(self) -> list[dict[str, Any]]:
        """Every session of the job, newest first."""
        found: list[dict[str, Any]] = self.stage.admin.call("GET", f"/jobs/{self.job_id}/generations")[
            "items"
        ]
        return found

    def wait(self, is_so: Callable[[], Any], *, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, f"{what}: {self.sessions()[:2]}; {self.stage.folder}"
            time.sleep(0.2)  # a question takes some 25 ms of the cores


class Begun:
    """A command that runs, whose output is read as it comes."""

    def __init__(self, command: list[str], *, environment: dict[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True
            )

    def read(self, num: int = -1) -> str:
        """So many characters of standard output, or all that is left."""
        assert self.process.stdout is not None
        return self.process.stdout.read(num)

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def finished(self) -> tuple[str, str]:
        """What is left of the output, and all of standard error, of a command that went well."""
        output = self.read()
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.errors
        return output, self.errors

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def platform(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("platform")
    silence = {"TRUNKLINE_GENERATION_SILENCE_SECONDS": f"{SILENCE_SECONDS:g}"}
    with (
        staged(folder / "state", models_from=model.parent, **silence) as stage,
        ExitStack() as stack,
    ):
        platform = Platform(stage, model, folder, stack, {})
        stage.register(model)
        platform.restart_worker()
        stack.callback(platform.stop_worker)
        for silo in ("north", "south"):
            _join(platform, silo)
            agent = platform.agents[silo]
            agent.start()
            stack.callback(_stop, agent)
        platform.wait(
            lambda: len(stage.admin.call("GET", "/datasets")["items"]) == 2, what="announced data sets"
        )
        platform.job_id = stage.submit(job_spec("m", "north", "south", name="notes"))
        platform.wait(lambda: stage.job(platform.job_id)["state"] == "completed", what="the job's end")
        yield platform


def _stop(agent: Agent) -> None:
    if agent.process is not None and agent.process.poll() is None:
        agent.end(signal.SIGTERM)


def _join(platform: Platform, silo: str) -> None:
    agent = platform.agents[silo] = Agent(silo, platform.folder)
    done = agent.command("enroll", "-", standard_input=platform.stage.invite("silo", silo))
    assert done.returncode == 0, done.stderr
    agent.add(ROWS)


def _tokens(model: Path, text: str) -> list[int]:
    tokenizer = load_tokenizer(model)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*begin, *encode_texts([text], tokenizer=tokenizer)[0]]


def whole_answers(platform: Platform, silo: str, prompts: Sequence[str], num_new: int) -> list[list[int]]:
    """What the silo's exported result, loaded by plain libraries and never cut, answers greedily."""
    tokenizer = load_tokenizer(platform.model)
    ends = end_tokens(platform.model) | {tokenizer.eos_token_id}
    base = AutoModelForCausalLM.from_pretrained(platform.model)
    result = platform.agents[silo].state_dir / "jobs" / platform.job_id / "result"
    model = PeftModel.from_pretrained(base, result)
    model.generation_config = GenerationConfig(
        max_new_tokens=num_new, do_sample=False, pad_token_id=0, eos_token_id=sorted(filter(None, ends))
    )
    answers = []
    for prompt in prompts:
        ids = torch.tensor([_tokens(platform.model, prompt)])
        found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids))
        answers.append(found[0, ids.shape[1] :].tolist())
    return answers


def whole_texts(platform: Platform, silo: str, prompts: Sequence[str], num_new: int = NUM_NEW) -> list[str]:
    tokenizer = load_tokenizer(platform.model)
    answers = whole_answers(platform, silo, prompts, num_new)
    return [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


class TestGenerate:
    def test_beside_the_agent_answers_as_the_silos_own_model(self, platform: Platform) -> None:
        lines = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS)
        for silo in ("north", "south"):
            words = ("--file", "-", "--json", "--batch-size", "3", "--max-new-tokens", f"{NUM_NEW}")
            done = platform.generate(silo, *words, standard_input=lines)
            assert done.returncode == 0, done.stderr
            *answers, last = objects(done.stdout)
            assert [answer["index"] for answer in answers] == [0, 1, 2, 3]
            assert [answer["text"] for answer in answers] == whole_texts(platform, silo, PROMPTS)
            expected = [len(answer) for answer in whole_answers(platform, silo, PROMPTS, NUM_NEW)]
            assert [answer["num_tokens"] for answer in answers] == expected
            total = last["total"]
            assert (total["num_prompts"], total["num_tokens"]) == (4, sum(expected))
            # fp32 hidden states of 32 numbers, both ways, and some hundred bytes of envelope per message.
            assert 2 * 4 * SIZE.dim < total["bytes_per_token"] < 2 * 4 * SIZE.dim + 500
        assert _agent_is_undisturbed(platform, "north")

    def test_shows_one_answer_as_it_comes(self, platform: Platform) -> None:
        process = platform.begin("north", "--prompt", PROMPTS[0], "--max-new-tokens", f"{NUM_NEW}")
        output, errors = process.finished()
        assert output == whole_texts(platform, "north", PROMPTS[:1])[0] + "\n"
        assert "tokens/s" in errors

    @pytest.mark.long
    def test_by_the_jobs_name_draws_the_same_tokens_for_the_same_seed(self, platform: Platform) -> None:
        words = ("-p", PROMPTS[0], "--temperature", "1.5", "--max-new-tokens", f"{NUM_NEW}", "--seed")
        first, again, other = (platform.generate("north", *words, seed, job="notes") for seed in "445")
        assert first.returncode == 0, first.stderr
        assert first.stdout == again.stdout
        assert first.stdout != other.stdout

    @pytest.mark.long
    def test_leaves_the_cached_trunk_fit_for_training(self, platform: Platform) -> None:
        """The same job again, at the worker that has generated with the first one's trunk, is the same."""
        again = platform.stage.submit(job_spec("m", "north", "south", name="again"))
        platform.wait(lambda: platform.stage.job(again)["state"] == "completed", what="the second job")

        def trunk(job: str) -> str:
            items = platform.stage.admin.call("GET", f"/jobs/{job}/artifacts")["items"]
            [found] = [item["digest"] for item in items if item["kind"] == "result"]
            return str(found)

        assert trunk(again) == trunk(platform.job_id)


@pytest.mark.long
class TestWithoutAnAgent:
    def test_logs_in_itself_and_lets_the_agent_in_again(self, platform: Platform) -> None:
        agent = platform.agents["south"]
        agent.end(signal.SIGTERM)
        words = ("-p", PROMPTS[0], "-p", PROMPTS[1], "--max-new-tokens", f"{NUM_NEW}", "--json")
        done = platform.generate("south", *words)
        assert done.returncode == 0, done.stderr
        texts = [answer["text"] for answer in objects(done.stdout)[:-1]]
        assert texts == whole_texts(platform, "south", PROMPTS[:2])
        agent.start()
        assert _agent_is_undisturbed(platform, "south")


@pytest.mark.long
class TestTwoSilos:
    def test_are_served_one_after_the_other(self, platform: Platform) -> None:
        words = ("-p", PROMPTS[0], "--max-new-tokens", "40", "--json", "--wait", "100")
        processes = {silo: platform.begin(silo, *words) for silo in ("north", "south")}
        for silo, process in processes.items():
            output, _ = process.finished()
            assert objects(output)[0]["text"] == whole_texts(platform, silo, PROMPTS[:1], 40)[0]
        newest = platform.sessions()[:2]
        assert {session["silo"] for session in newest} == {"north", "south"}
        assert {(session["state"], session["reason_code"]) for session in newest} == {("ended", "finished")}


class TestFaults:
    def test_a_worker_killed_in_mid_answer_costs_nothing_but_time(self, platform: Platform) -> None:
        long = 400
        process = platform.begin(
            "north", "-p", PROMPTS[0], "--max-new-tokens", f"{long}", "--wait", f"{PATIENCE_SECONDS:g}"
        )
        begun = process.read(20)
        assert platform.worker is not None
        platform.worker.signal(signal.SIGKILL)
        platform.wait(lambda: platform.worker and not platform.worker.is_running, what="the worker's end")
        platform.restart_worker()
        rest, errors = process.finished()
        assert "what was under way begins anew" in errors
        assert begun + rest == whole_texts(platform, "north", PROMPTS[:1], long)[0] + "\n"
        assert platform.sessions()[0]["epoch"] == 2

    @pytest.mark.long
    def test_a_session_that_has_had_its_time_is_followed_by_another(self, platform: Platform) -> None:
        prompts = [f"note {number}" for number in range(6)]
        words = [word for prompt in prompts for word in ("-p", prompt)]
        process = platform.begin("north", *words, "--batch-size", "1", "--max-new-tokens", "200", "--json")
        first = process.read_line()
        _let_it_be_old(platform)
        rest, _ = process.finished()
        texts = [answer["text"] for answer in objects(first + rest)[:-1]]
        assert texts == whole_texts(platform, "north", prompts, 200)
        newest = platform.sessions()[:2]
        assert [session["reason_code"] for session in newest] == ["finished", "too_long"]

    def test_a_killed_silo_s_session_ends_by_itself(self, platform: Platform) -> None:
        process = self._generating(platform)
        process.process.kill()
        platform.wait(lambda: platform.sessions()[0]["state"] == "ended", what="the session's end")
        assert platform.sessions()[0]["reason_code"] in {"silo_silent", "idle"}
        self._next_is_served(platform)

    @pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_ends_the_session_in_order(
        self, platform: Platform, signum: signal.Signals, code: int
    ) -> None:
        process = self._generating(platform)
        process.process.send_signal(signum)
        process.read()
        assert process.process.wait(PATIENCE_SECONDS) == code, process.errors
        platform.wait(lambda: platform.sessions()[0]["state"] == "ended", what="the session's end")
        assert platform.sessions()[0]["reason_code"] == "finished"
        self._next_is_served(platform)

    @pytest.mark.long
    def test_an_admin_ends_a_session_and_the_silo_is_told(self, platform: Platform) -> None:
        process = self._generating(platform)
        session = platform.sessions()[0]["id"]
        platform.stage.admin.call("POST", f"/jobs/{platform.job_id}/generations/{session}/end")
        process.read()
        assert process.process.wait(PATIENCE_SECONDS) == 12, process.errors
        assert "admin ended the session" in process.errors

    @pytest.mark.long
    def test_without_a_worker_waits_no_longer_than_asked(self, platform: Platform) -> None:
        platform.stage.admin.call("POST", "/workers/gpu-1/drain")
        done = platform.generate("north", "-p", "x", "--wait", "1")
        platform.stage.admin.call("POST", "/workers/gpu-1/undrain")
        assert done.returncode == 10
        assert "no worker was free within 1 s (--wait)" in done.stderr
        assert "drained: gpu-1" in done.stderr

    def _generating(self, platform: Platform) -> Begun:
        """A generation of which something has come, and much has not."""
        process = platform.begin("north", "-p", PROMPTS[0], "--max-new-tokens", "8000")
        assert process.read(10)
        return process

    def _next_is_served(self, platform: Platform) -> None:
        done = platform.generate("north", "-p", PROMPTS[0], "--max-new-tokens", f"{NUM_NEW}")
        assert done.returncode == 0, done.stderr
        assert done.stdout == whole_texts(platform, "north", PROMPTS[:1])[0] + "\n"


class TestRefusals:
    def test_of_a_silo_that_took_no_part(self, platform: Platform) -> None:
        _join(platform, "west")
        jobs = platform.agents["west"].state_dir / "jobs"
        shutil.copytree(platform.agents["north"].state_dir / "jobs" / platform.job_id, jobs / platform.job_id)
        done = platform.generate("west", "-p", "x")
        assert done.returncode == 12
        assert "no part in a job" in done.stderr

    @pytest.mark.long
    def test_of_a_job_without_a_result(self, platform: Platform) -> None:
        job = platform.stage.submit(job_spec("m", "north", "south", name="cancelled"))
        platform.stage.admin.call("POST", f"/jobs/{job}/cancel")
        platform.wait(lambda: platform.stage.job(job)["state"] == "cancelled", what="its end")
        (platform.agents["north"].state_dir / "jobs" / job).mkdir(parents=True, exist_ok=True)
        done = platform.generate("north", "-p", "x", job=job)
        assert done.returncode == 12
        assert "'cancelled' is cancelled and has no result" in done.stderr

    def test_of_a_job_that_is_not_kept_here(self, platform: Platform) -> None:
        done = platform.generate("north", "-p", "x", job="nothing")
        assert done.returncode == 5
        assert "no job is called 'nothing'" in done.stderr

    def test_of_an_answer_for_which_the_worker_has_no_room(self, platform: Platform) -> None:
        done = platform.generate("north", "-p", "x", "--max-new-tokens", "9000")
        assert done.returncode == 9
        assert "of which it takes 8192; shorten the prompt or lower max_new_tokens" in done.stderr
        assert platform.sessions()[0]["state"] == "ended"

    def test_of_a_prompt_that_the_models_context_does_not_hold(self, platform: Platform) -> None:
        done = platform.generate("north", "-p", "the " * CONTEXT_TOKENS)
        assert done.returncode == 4
        assert f"the model's context is {CONTEXT_TOKENS} tokens (max_position_embeddings)" in done.stderr
        [session, *_] = platform.sessions()
        assert (session["state"], session["num_tokens"]) == ("ended", 0)

    def test_of_chat_with_a_tokenizer_that_knows_none(self, platform: Platform) -> None:
        done = platform.generate("north", "-p", "x", "--chat")
        assert done.returncode == 3
        assert "no chat template; leave out --chat" in done.stderr
        assert platform.sessions()[0]["state"] == "ended"


def _let_it_be_old(platform: Platform) -> None:
    """Let the session that is hosted have begun long ago."""
    database = platform.stage.folder / "trunkline.db"
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute(
            "UPDATE generations SET hosted_at = '2020-01-01 00:00:00.000000' WHERE state = 'hosted'"
        )


def _agent_is_undisturbed(platform: Platform, silo: str) -> bool:
    """The agent runs, and was neither shut out nor asked to log in anew."""
    process = platform.agents[silo].process
    log = (platform.agents[silo].state_dir / "logs/agent.log").read_text()
    return process is not None and process.poll() is None and "identity_in_use" not in log
