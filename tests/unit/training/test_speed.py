import torch

from splitlearn.training.speed import measure_speed


def test_every_part_is_measured() -> None:
    speed = measure_speed(torch.device("cpu"), widths=(32, 64))
    assert [rate.width for rate in speed.rates] == [32, 64]
    parts = (
        speed.layer_seconds,
        *(rate.flops_per_second for rate in speed.rates),
        speed.logits_per_second,
        speed.updates_per_second,
    )
    assert all(part > 0 for part in parts)


def test_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    measure_speed(torch.device("cpu"), widths=(32,))
    assert torch.equal(torch.rand(4), expected)
