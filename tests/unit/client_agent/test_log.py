import json
from logging.handlers import RotatingFileHandler
from pathlib import Path

from client_agent import log


class TestLogTo:
    def test_writes_files_that_the_owner_alone_may_read(self, tmp_path: Path) -> None:
        path = tmp_path / "agent.log"
        path.touch(mode=0o644)  # as an earlier version made it
        logger = log.log_to(path, also_stderr=False)
        try:
            handler = logger.handlers[0]
            assert isinstance(handler, RotatingFileHandler)
            logger.info("before")
            handler.doRollover()
            logger.info("after")
        finally:
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
            logger.propagate = True
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == ["agent.log", "agent.log.1"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


class TestLines:
    def write(self, path: Path, log_format: log.LogFormat) -> str:
        logger = log.log_to(path, also_stderr=False, log_format=log_format)
        before = log.CORRELATION.set("request-0815")
        try:
            logger.warning("job %s: its process has gone", "j")
            log.CORRELATION.set("")
            logger.info("of no job")
        finally:
            log.CORRELATION.reset(before)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()
            logger.propagate = True
        return path.read_text(encoding="utf-8")

    def test_name_the_request_that_submitted_the_job(self, tmp_path: Path) -> None:
        first, second = self.write(tmp_path / "agent.log", "console").splitlines()
        assert first.endswith("WARNING job j: its process has gone [request-0815]")
        assert second.endswith("INFO of no job")

    def test_are_json_where_that_is_asked_for(self, tmp_path: Path) -> None:
        first, second = map(json.loads, self.write(tmp_path / "agent.log", "json").splitlines())
        assert first.pop("timestamp").endswith("+00:00")
        assert first == {
            "level": "warning",
            "event": "job j: its process has gone",
            "correlation_id": "request-0815",
        }
        assert "correlation_id" not in second
