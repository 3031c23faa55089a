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
