import pytest
import torch

from splitlearn.control_plane.errors import SettingError
from worker.devices import choose_device, describe_capabilities, describe_device


class TestChooseDevice:
    def test_auto_takes_one_that_is_there(self) -> None:
        assert choose_device("auto").type in {"cuda", "mps", "cpu"}

    @pytest.mark.parametrize("word", ["tpu", "cuda:x", "meta"])
    def test_names_what_may_be_asked_for(self, word: str) -> None:
        with pytest.raises(SettingError, match="use auto, cpu, cuda"):
            choose_device(word)

    def test_refuses_a_device_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(SettingError, match="has 1 CUDA devices"):
            choose_device("cuda:1")


class TestDescribe:
    def test_the_processors_memory(self) -> None:
        device = describe_device(torch.device("cpu"))
        assert 0 < device.free_memory_bytes <= device.total_memory_bytes

    def test_only_what_is_served(self) -> None:
        assert describe_capabilities(torch.device("cpu")).precisions == ("fp32",)
