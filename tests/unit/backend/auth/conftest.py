"""A control plane that listens on a port of this process."""

from tests.unit.backend.cli.conftest import database as database
from tests.unit.backend.cli.conftest import listening as listening
