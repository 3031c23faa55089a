import pytest

from splitlearn.comparison.summary import mean_alone, summarise
from tests.unit.comparison.builders import modes, run_result

MODES = modes("centralised", "client-batching", "alone")
RESULTS = [
    run_result("centralised", 1, 2.0, accuracy=0.5),
    run_result("centralised", 2, 4.0, accuracy=0.7),
    run_result("client-batching", 1, 2.2, accuracy=0.6),
    run_result("client-batching", 2, 4.0, accuracy=0.6),
    run_result("alone:a", 1, 2.1, accuracy=0.4),
    run_result("alone:b", 1, 2.5, accuracy=0.4),
    run_result("alone:a", 2, 3.0, accuracy=0.4),
    run_result("alone:b", 2, 4.0, accuracy=0.4),
]


class TestSummarise:
    def test_pairs_runs_of_the_same_seed(self) -> None:
        batching = summarise(MODES, RESULTS)[1]
        assert batching.difference is not None
        assert batching.difference.mean == pytest.approx((0.1 + 0.0) / 2)  # not (3.1 - 3.0) / 3.0
        assert batching.metric_difference is not None
        assert batching.metric_difference.mean == pytest.approx((0.1 - 0.1) / 2)

    def test_leaves_out_what_has_no_partner(self) -> None:
        lonely = [run for run in RESULTS if (run.mode, run.seed) != ("centralised", 2)]
        batching = summarise(MODES, lonely)[1]
        assert batching.difference is not None
        assert batching.difference.mean == pytest.approx(0.1)
        assert batching.seeds == (1, 2)

    def test_counts_the_seeds_that_are_better_than_the_mean_silo_alone(self) -> None:
        central, batching, *alone = summarise(MODES, RESULTS)
        assert (batching.better_than_alone, batching.compared_with_alone) == (1, 2)  # 2.2 < 2.3, 4.0 > 3.5
        assert (central.better_than_alone, central.compared_with_alone) == (1, 2)
        assert {one.compared_with_alone for one in alone} == {0}

    def test_compares_with_the_silos_alone_only_where_all_are_there(self) -> None:
        lacking = [run for run in RESULTS if (run.mode, run.seed) != ("alone:b", 2)]
        batching = summarise(MODES, lacking)[1]
        assert batching.compared_with_alone == 1
        found = mean_alone(MODES, lacking)
        assert found is not None
        assert found.mean == pytest.approx(2.3)

    def test_of_some_silos_alone_is_not_the_mean_silo(self) -> None:
        found = [run_result("client-batching", 1, 1.0), run_result("alone:a", 1, 0.5)]
        assert mean_alone(modes("client-batching", "alone:a"), found) is None
        [batching, _] = summarise(modes("client-batching", "alone:a"), found)
        assert batching.compared_with_alone == 0

    def test_leaves_out_a_mode_without_a_run(self) -> None:
        assert [summary.mode.name for summary in summarise(MODES, RESULTS[:2])] == ["centralised"]
        assert mean_alone(MODES, RESULTS[:2]) is None

    def test_averages_curves(self) -> None:
        assert summarise(MODES, RESULTS)[0].curve == ((0.5, 4.0), (1.0, 3.0))
