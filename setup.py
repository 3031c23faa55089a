"""Puts the migrations into the wheel as ``backend/migrations``: nothing else needs code to be built."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithMigrations(build_py):
    """Copies ``migrations/``, which is no package of its own, beside the code that runs it."""

    def run(self) -> None:
        """Build as usual, then copy; an editable install finds the folder where it is."""
        super().run()
        if self.editable_mode:
            return
        for source in sorted(Path("migrations").rglob("*.py")):
            target = Path(self.build_lib, "backend", source)
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithMigrations})
