"""What the artifact store refuses."""

from backend.errors import ApiError, InvalidRequestError, NotFoundError, TooLargeError


class UnknownBlobError(NotFoundError):
    """The store has no such blob that the caller may see."""


class WrongDigestError(InvalidRequestError):
    """The bytes that came are not those that were announced."""

    code = "wrong_digest"
    remedy = "send the file again; if it happens again, something on the way changes it"


class BlobTooLargeError(TooLargeError):
    """One blob is over the limit."""

    code = "blob_too_large"
    remedy = "raise TRUNKLINE_MAX_BLOB_BYTES at the server, or train less (an adapter instead of all weights)"


class QuotaError(ApiError):
    """The project's share of the store is used up."""

    status = 507
    code = "quota"
    remedy = "delete results that are not needed, or raise TRUNKLINE_ARTIFACT_QUOTA_BYTES"


class StoreFullError(ApiError):
    """The disk is full."""

    status = 507
    code = "store_full"
    remedy = "free space where the artifacts lie; nothing half-written was kept"


class RangeRefusedError(ApiError):
    """The range begins beyond the blob's end, or is none."""

    status = 416
    code = "range_refused"
    remedy = "ask for bytes within the blob: Range: bytes=FIRST-"
