"""Parameters that several routes share."""

from typing import Annotated

from fastapi import Path, Query

PathName = Annotated[str, Path(max_length=64)]
"""A name in a path; one that no rule allows is simply not found."""

AFTER_MEANS = "``next`` of the page before."
After = Annotated[str | None, Query(max_length=100, description=AFTER_MEANS)]
"""Where the page before ended, by a row's moment and id; see ``backend.paging``."""
