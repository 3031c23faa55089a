from pathlib import Path

import pytest

from splitlearn.control_plane.broker import broker_settings
from splitlearn.control_plane.errors import SettingError
from splitlearn.errors import StorageError


class TestBrokerSettings:
    def test_makes_a_folder_for_its_user_alone(self, tmp_path: Path) -> None:
        broker_settings(None, tmp_path / "broker")
        assert (tmp_path / "broker" / "messages").stat().st_mode & 0o077 == 0

    def test_sends_and_takes_in_the_same_folder(self, tmp_path: Path) -> None:
        options = broker_settings("filesystem://", tmp_path)["broker_transport_options"]
        assert isinstance(options, dict)
        assert options["data_folder_in"] == options["data_folder_out"]

    def test_leaves_the_folder_alone_with_redis(self, tmp_path: Path) -> None:
        assert broker_settings("redis://h:6379/0", tmp_path / "b")["broker_url"] == "redis://h:6379/0"
        assert not (tmp_path / "b").exists()

    def test_takes_json_alone(self, tmp_path: Path) -> None:
        assert broker_settings(None, tmp_path)["accept_content"] == ["json"]

    @pytest.mark.parametrize("url", ["amqp://h", "sqs://", "nothing"])
    def test_refuses_another_broker(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="is not served; use redis://"):
            broker_settings(url, tmp_path)

    def test_says_where_it_cannot_make_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="choose another, or set TRUNKLINE_BROKER_URL"):
            broker_settings(None, tmp_path / "file" / "broker")
