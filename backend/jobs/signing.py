"""Signing the specifications of jobs anew, when the spec-signer has another key."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.db.models import Generation, GenerationState, Job
from backend.federation.service import federation_of
from backend.federation.signer import spec_signer
from backend.jobs.errors import NoSpecSignerError
from backend.jobs.state import ENDED
from splitlearn.errors import IdentityError
from splitlearn.identity import sign_spec


def sign_again(session: Session, job: Job, *, now: datetime) -> None:
    """Sign one job by the current key: it may have ended before that took the last one's place.

    Raises:
        NoSpecSignerError: Nobody vouches for this server's signature.
    """
    try:
        # Held: a key that is replaced before this is committed would leave a word that nobody believes.
        signer = spec_signer(federation_of(session, hold=True), now=now)
    except IdentityError as error:
        raise NoSpecSignerError(f"this server may not sign specifications: {error.message}") from error
    if signer is None:
        raise NoSpecSignerError("the federation root has not signed this server's key for specifications")
    job.spec_signature = sign_spec(job.spec_bytes, signer=signer).to_bytes()


def sign_jobs_anew(session: Session, *, now: datetime) -> int:
    """Sign the jobs that have not ended, or whose results are in use, by the current key; return how many.

    The bytes that are signed stay: parties that train under them notice nothing.
    """
    signer = spec_signer(federation_of(session), now=now)
    assert signer is not None, "called once the new key is certified"
    in_use = select(Generation.job_id).where(Generation.state != GenerationState.ENDED)
    which = Job.state.not_in(ENDED) | Job.id.in_(in_use)
    jobs = session.scalars(select(Job).where(which).with_for_update()).all()
    for job in jobs:
        job.spec_signature = sign_spec(job.spec_bytes, signer=signer).to_bytes()
    return len(jobs)
