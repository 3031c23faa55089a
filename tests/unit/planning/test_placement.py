"""Layers on devices, by made-up tables of memory."""

from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitlearn.planning import Burden, DeviceMemory, LayerRange, PlacementError, place_layers

GIB = 1 << 30


def devices(*free_bytes: int) -> list[DeviceMemory]:
    return [DeviceMemory(f"cuda:{index}", free) for index, free in enumerate(free_bytes)]


def burden(*layer_bytes: int, first: int = 2, entrance: int = 0, leaving: int = 0) -> Burden:
    return Burden(range(first, first + len(layer_bytes)), layer_bytes, entrance, leaving)


def laid(ranges: Sequence[LayerRange]) -> list[tuple[str, int, int]]:
    return [(found.device, found.first_layer, found.last_layer) for found in ranges]


TABLES = {
    "one device holds all": (burden(10, 10), devices(20), [("cuda:0", 2, 3)]),
    "two would, one is enough": (burden(10, 10), devices(20, 20), [("cuda:0", 2, 3)]),
    "the emptier one of two that hold all": (burden(10, 10), devices(20, 40), [("cuda:1", 2, 3)]),
    "halves": (burden(10, 10, 10, 10), devices(30, 30), [("cuda:0", 2, 3), ("cuda:1", 4, 5)]),
    "in proportion to what is free": (
        burden(*[10] * 8),
        devices(25, 75),
        [("cuda:0", 2, 3), ("cuda:1", 4, 9)],
    ),
    "a full device is left out": (
        burden(10, 10, 10),
        devices(20, 0, 20),
        [("cuda:0", 2, 3), ("cuda:2", 4, 4)],
    ),
    "in another order than they are named": (
        burden(10, 10, 30),
        devices(30, 25),
        [("cuda:1", 2, 3), ("cuda:0", 4, 4)],
    ),
    "the entrance takes room of the first": (
        burden(10, 10, 10, entrance=10),
        devices(20, 20),
        [("cuda:0", 2, 2), ("cuda:1", 3, 4)],
    ),
    "the exit takes room of the last": (
        burden(10, 10, 10, leaving=10),
        devices(20, 20),
        [("cuda:0", 2, 3), ("cuda:1", 4, 4)],
    ),
    "three": (
        burden(*[10] * 9),
        devices(40, 40, 40),
        [("cuda:0", 2, 4), ("cuda:1", 5, 7), ("cuda:2", 8, 10)],
    ),
    "layers of unequal size": (
        burden(40, 10, 10, 10, 10),
        devices(45, 45),
        [("cuda:0", 2, 2), ("cuda:1", 3, 6)],
    ),
    "layers of no size": (burden(0, 0), devices(0), [("cuda:0", 2, 3)]),
}


class TestPlaceLayers:
    @pytest.mark.parametrize("case", TABLES)
    def test_is_as_the_table_says(self, case: str) -> None:
        layers, free, expected = TABLES[case]
        assert laid(place_layers(layers, free)) == expected

    def test_says_what_lies_where(self) -> None:
        first, second = place_layers(burden(10, 10, 10, entrance=5, leaving=3), devices(25, 25))
        assert (first.num_bytes, first.free_bytes, list(first.layers)) == (15, 25, [2])
        assert (second.num_bytes, list(second.layers)) == (23, [3, 4])

    def test_refuses_by_layers_bytes_and_devices(self) -> None:
        with pytest.raises(PlacementError) as caught:
            place_layers(burden(GIB, GIB, 2 * GIB, GIB), devices(2 * GIB, GIB))
        assert caught.value.message == (
            "layers 2 to 5 of the trunk need 5.00 GiB, and do not fit in what is free (cuda:0 2.00 GiB, "
            "cuda:1 1.00 GiB): layers 2 to 3 fit, the other 2 need 3.00 GiB elsewhere"
        )
        assert (caught.value.num_fitting, caught.value.missing_bytes) == (2, 3 * GIB)

    def test_names_a_layer_that_is_larger_than_every_device(self) -> None:
        with pytest.raises(PlacementError, match="not one layer fits"):
            place_layers(burden(3 * GIB), devices(2 * GIB, 2 * GIB))

    def test_eight_devices_of_a_hundred_layers(self) -> None:
        found = place_layers(burden(*[GIB] * 96), devices(*[16 * GIB] * 8))
        assert [len(part.layers) for part in found] == [16] * 6


sizes = st.integers(0, 12)
tables = st.builds(
    lambda layer_bytes, entrance, leaving: burden(*layer_bytes, entrance=entrance, leaving=leaving),
    st.lists(sizes, min_size=1, max_size=7),
    sizes,
    sizes,
)


def exists(layers: Burden, free: Sequence[int]) -> bool:
    """Whether any contiguous ranges fit, found by trying all."""
    return any(_fits(layers, order, 0) for order in permutations(free))


def _fits(layers: Burden, free: Sequence[int], first: int) -> bool:
    count = len(layers.layer_bytes)
    if first == count:
        return True
    if not free:
        return False
    ends = [end for end in range(first + 1, count + 1) if layers.bytes_of(first, end) <= free[0]]
    return _fits(layers, free[1:], first) or any(_fits(layers, free[1:], end) for end in ends)


class TestAnyTable:
    @given(tables, st.lists(st.integers(0, 40), min_size=1, max_size=4))
    def test_finds_ranges_wherever_some_exist_and_only_there(self, layers: Burden, free: list[int]) -> None:
        try:
            found = place_layers(layers, devices(*free))
        except PlacementError:
            assert not exists(layers, free)
            return
        assert exists(layers, free)
        assert [number for part in found for number in part.layers] == list(layers.layers)
        assert len({part.device for part in found}) == len(found)
        for part in found:
            first = part.first_layer - layers.layers[0]
            assert part.num_bytes == layers.bytes_of(first, first + len(part.layers)) <= part.free_bytes
            assert part.free_bytes == free[int(part.device.removeprefix("cuda:"))]

    @given(tables, st.lists(st.integers(0, 40), min_size=1, max_size=4))
    def test_takes_no_more_devices_than_needed(self, layers: Burden, free: list[int]) -> None:
        try:
            found = place_layers(layers, devices(*free))
        except PlacementError:
            return
        fewer = [order[: len(found) - 1] for order in permutations(free)]
        assert not any(_fits(layers, order, 0) for order in fewer)

    @given(tables, st.lists(st.integers(0, 40), min_size=1, max_size=4))
    def test_is_the_same_every_time(self, layers: Burden, free: list[int]) -> None:
        try:
            first = place_layers(layers, devices(*free))
        except PlacementError:
            return
        assert place_layers(layers, devices(*free)) == first
