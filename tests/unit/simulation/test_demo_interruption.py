import signal

import pytest

from splitlearn.simulation.interruption import Interruption


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def signum(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


class TestInterruption:
    def test_becomes_an_exception(self, signum: int) -> None:
        with Interruption() as interruption, pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signum)
        assert interruption.signum == signum

    def test_calls_once_then_becomes_an_exception(self, signum: int) -> None:
        calls: list[str] = []
        with Interruption() as interruption, interruption.calls(lambda: calls.append("cancel")):
            signal.raise_signal(signum)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signum)
        assert calls == ["cancel"]

    def test_waits_for_an_import(self, signum: int) -> None:
        with Interruption() as interruption:
            with interruption.waits():
                signal.raise_signal(signum)
            with pytest.raises(KeyboardInterrupt):
                interruption.check()

    def test_remembers_the_first_signal(self) -> None:
        with Interruption() as interruption, interruption.waits():
            signal.raise_signal(signal.SIGTERM)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert interruption.signum == signal.SIGTERM

    def test_puts_the_handlers_back(self, signum: int) -> None:
        before = signal.getsignal(signum)
        with Interruption():
            assert signal.getsignal(signum) != before
        assert signal.getsignal(signum) == before

    def test_is_silent_without_a_signal(self) -> None:
        with Interruption() as interruption:
            interruption.check()
        assert interruption.signum is None

    def test_does_nothing_once_the_end_is_decided(self, signum: int) -> None:
        with Interruption() as interruption:
            interruption.settle()
            signal.raise_signal(signum)
        assert interruption.signum == signum

    def test_takes_a_word_for_a_signal(self) -> None:
        calls: list[str] = []
        with Interruption() as interruption, interruption.calls(lambda: calls.append("cancel")):
            interruption.interrupt(signal.SIGPIPE)
        assert (interruption.signum, calls) == (signal.SIGPIPE, ["cancel"])
