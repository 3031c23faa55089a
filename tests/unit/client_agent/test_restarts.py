from client_agent.restarts import Restarts


class TestDied:
    def test_pauses_grow(self) -> None:
        restarts = Restarts()
        pauses = [restarts.died(after_seconds=1) for _ in range(4)]
        assert pauses == sorted(set(pauses), key=float)  # type: ignore[arg-type]

    def test_gives_up_after_so_many_in_a_row(self) -> None:
        restarts = Restarts(max_deaths=3)
        assert [restarts.died(after_seconds=1) is None for _ in range(3)] == [False, False, True]

    def test_a_round_begins_the_count_anew(self) -> None:
        restarts = Restarts(max_deaths=2)
        assert all(restarts.died(after_seconds=1, got_on=True) is not None for _ in range(9))
        assert restarts.died(after_seconds=1) is None

    def test_a_long_life_begins_the_count_anew(self) -> None:
        restarts = Restarts(max_deaths=2, healthy_seconds=10)
        restarts.died(after_seconds=1)
        assert restarts.died(after_seconds=11) is not None
