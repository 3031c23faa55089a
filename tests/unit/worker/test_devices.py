import pytest
import torch

from splitlearn.control_plane.errors import SettingError
from worker.devices import choose_devices, describe_capabilities, describe_device


class TestChooseDevice:
    def test_auto_takes_one_that_is_there(self) -> None:
        (device,) = choose_devices("auto")
        assert device.type in {"cuda", "mps", "cpu"}

    def test_takes_several_in_the_order_of_the_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert choose_devices("cuda:1, cuda,cpu") == (
            torch.device("cuda", 1),
            torch.device("cuda", 0),
            torch.device("cpu"),
        )

    def test_refuses_one_that_is_named_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with pytest.raises(SettingError, match="names 'cuda' twice"):
            choose_devices("cuda,cuda:0")

    def test_refuses_more_than_a_trunk_is_laid_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 9)
        with pytest.raises(SettingError, match="names 9 devices; a trunk is laid over 8 at most"):
            choose_devices(",".join(f"cuda:{index}" for index in range(9)))

    @pytest.mark.parametrize("word", ["tpu", "cuda:x", "meta"])
    def test_names_what_may_be_asked_for(self, word: str) -> None:
        with pytest.raises(SettingError, match="use auto, cpu, cuda"):
            choose_devices(word)

    def test_refuses_a_device_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(SettingError, match="has 1 CUDA devices"):
            choose_devices("cuda:1")


class TestDescribe:
    def test_the_processors_memory(self) -> None:
        device = describe_device(torch.device("cpu"))
        assert 0 < device.free_memory_bytes <= device.total_memory_bytes

    def test_the_precisions_that_it_was_tried_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker.devices.computes_in", lambda word, _: word != "fp16")
        assert describe_capabilities([torch.device("cpu")]).precisions == ("fp32", "bf16")

    def test_every_device_and_the_models_at_hand(self) -> None:
        told = describe_capabilities([torch.device("cpu"), torch.device("cpu", 1)], models=["ab" * 32])
        assert [device.id for device in told.devices] == ["cpu", "cpu:1"]
        assert told.device == told.devices[0]
        assert told.models == ("ab" * 32,)
        assert "llama" in told.families
