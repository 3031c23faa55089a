"""What is typed wrong, or set wrong, is a sentence and an exit code."""

from pathlib import Path

import pytest

from worker.cli import main


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["trunkline-worker", *words])
    return main()


class TestMain:
    def test_names_a_wrong_option(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ending:
            typed(monkeypatch, "--threads", "many")
        assert ending.value.code == 2
        assert "--threads" in capsys.readouterr().err

    def test_names_a_wrong_setting(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("TRUNKLINE_WORKER_WATCH_PORT", "many")
        assert typed(monkeypatch) == 2
        assert capsys.readouterr().err.startswith("trunkline worker: TRUNKLINE_WORKER_WATCH_PORT=many: ")

    def test_says_who_refuses(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.delenv("TRUNKLINE_WORKER_INVITATION", raising=False)
        assert typed(monkeypatch, "--rotate-key", "--state-dir", str(tmp_path)) == 5
        assert capsys.readouterr().err.startswith("trunkline worker: ")

    def test_names_a_broker_that_is_not_served_and_not_its_password(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        monkeypatch.setenv("TRUNKLINE_BROKER_URL", "amqp://me:s3cret@host")
        for words in ((), ("--broker-url", "amqp://me:s3cret@host")):
            assert typed(monkeypatch, "--state-dir", str(tmp_path / "state"), *words) == 2
            said = capsys.readouterr().err
            assert said.startswith(
                "trunkline worker: TRUNKLINE_BROKER_URL: the broker 'amqp' is not served; use"
            )
            assert (said.count("\n"), "s3cret" in said) == (1, False)
        assert not (tmp_path / "state").exists()
