"""What a silo checks of a job before anything is done for it. Torch-free; decides, asks nobody."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime

from client_agent.data import DatasetRegistry
from splitlearn.control_plane.schemas import SiloJob
from splitlearn.errors import SpecError
from splitlearn.identity import MalformedSpecSignatureError, SpecSignature, TrustStore, verify_spec
from splitlearn.spec import MAX_SPEC_BYTES, JobSpec


@dataclass(frozen=True, slots=True)
class SignedJob:
    """A job as far as it is verified here, where it is not told as a ``SiloJob``.

    Attributes:
        id: The job's.
        spec, signature: Canonical bytes and the spec-signer's word, in base 64.
    """

    id: str
    spec: str
    signature: str


def verified_spec(job: SiloJob | SignedJob, *, trust: TrustStore, now: datetime) -> JobSpec:
    """Return a job's specification if some spec-signer of the federation vouches for its very bytes.

    Raises:
        IdentityError: Nobody does; the subclass says why.
        SpecError: The bytes are no specification of this version, or not its one encoding.
    """
    try:
        spec_bytes = base64.b64decode(job.spec, validate=True)
        signature = SpecSignature.from_bytes(base64.b64decode(job.signature, validate=True))
    except binascii.Error as error:
        raise MalformedSpecSignatureError(
            f"job {job.id}: specification or signature is not base 64; ask the control plane's admin"
        ) from error
    if len(spec_bytes) > MAX_SPEC_BYTES:
        raise SpecError(
            f"job {job.id}: {len(spec_bytes)} bytes of specification, the limit is {MAX_SPEC_BYTES}"
        )
    verify_spec(spec_bytes, signature, trust=trust, now=now)
    spec = JobSpec.parse(spec_bytes)
    if spec.canonical_bytes() != spec_bytes:
        # Parties prove to each other the digest of what they parsed: it must be of what was signed.
        raise SpecError(f"job {job.id}: the specification is not in its canonical form; submit it anew")
    spec.refuse_unserved()
    return spec


def refuse_unfit(spec: JobSpec, *, silo: str, registry: DatasetRegistry) -> None:
    """Refuse a job that is not for this silo, or asks for what it does not have.

    Raises:
        SpecError: The silo is not in the roster.
        UnknownDatasetError: No such data set here.
        DataError: The data set is for another kind of task.
    """
    dataset = registry.get(spec.silos[spec.silo_index(silo)].dataset)
    dataset.refuse_other_task(spec.task.kind)
