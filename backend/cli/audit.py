"""``trunkline audit``: export the audit, and verify an export without believing the server."""

import base64
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from backend.audit.export import everything, export, signed_head
from backend.audit.lines import MAX_LINE_BYTES
from backend.audit.verification import last_head, verify
from backend.cli.options import EPILOG_REMOTE, AsJson, group
from backend.cli.output import USAGE_EXIT_CODE, CommandError, show
from backend.cli.remote import ClientSettings, Remote
from backend.db import Database, check_schema
from backend.settings import Settings
from splitlearn.errors import StorageError
from splitlearn.identity import Fingerprint, InvalidKeyError, PublicKey

app = group(
    "audit",
    f"The audit: export it, verify an export. {EPILOG_REMOTE}",
    example="trunkline audit export --out audit.jsonl",
)
_EXPORT = "/audit/export"
_KEY_BYTES = 32


@app.command("export", epilog="Example: trunkline audit export --out audit.jsonl")
def export_audit(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write here instead of to standard output.")
    ] = None,
    on_server: Annotated[
        bool,
        typer.Option(
            "--on-server", help="Read this machine's database: the content of all organisations' rows."
        ),
    ] = False,
) -> None:
    """Write the federation's chain as JSON lines, signed head last; needs the role auditor or admin."""
    blocks = _from_database() if on_server else Remote(ClientSettings()).blocks(_EXPORT)
    with _opened(out) as file:
        for block in blocks:
            file.write(block)


@app.command("verify", epilog="Example: trunkline audit verify audit.jsonl --root-public-key 8c3f...")
def verify_audit(
    file: Annotated[Path | None, typer.Argument(help="An export; left out with --server.")] = None,
    *,
    root_public_key: Annotated[
        str, typer.Option(help="The federation root's public key, in hexadecimal or base 64.")
    ],
    server: Annotated[
        bool, typer.Option("--server", help="Ask the control plane for an export now.")
    ] = False,
    earlier: Annotated[
        Path | None, typer.Option(help="An export made before, which this one must continue.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find any changed, dropped, moved or added row, and name it (exit code 7). A file needs no server."""
    root = _key(root_public_key)
    if (file is None) is not server:
        raise CommandError(
            "name either the file of an export or --server, not both", exit_code=USAGE_EXIT_CODE
        )
    before = last_head(_lines_of(earlier)) if earlier else None
    lines = _lines_of(file) if file else _split(Remote(ClientSettings()).blocks(_EXPORT))
    found = verify(lines, root, earlier=before)
    facts = {
        "rows": found.num_rows,
        "hidden": found.num_hidden,
        "digest": found.digest.hex(),
        "signed_at": found.signed_at.isoformat(),
        "root": str(Fingerprint.of(root)),
        "continues": str(earlier) if earlier else None,
    }
    text = (
        f"whole: {found.num_rows} rows, {found.num_hidden} of them hidden as other organisations', "
        f"signed at {found.signed_at.isoformat()}\nroot: {facts['root']} (compare it with the one you pinned)"
    )
    show(facts, as_json=as_json, text=text)


def _from_database() -> Iterator[bytes]:
    database = Database(Settings().resolved_database_url)
    check_schema(database)
    return export(database, signed_head(database), everything)


def _key(text: str) -> PublicKey:
    try:
        is_hex = len(text) == 2 * _KEY_BYTES
        return PublicKey(bytes.fromhex(text) if is_hex else base64.b64decode(text, validate=True))
    except (ValueError, InvalidKeyError) as error:
        raise CommandError(
            f"--root-public-key {text[:80]!r} is no Ed25519 key in hexadecimal or base 64",
            remedy="see TRUNKLINE_ROOT_PUBLIC_KEY, or root_public_key in GET /api/v1/federation",
            exit_code=USAGE_EXIT_CODE,
        ) from error


@contextmanager
def _opened(out: Path | None) -> Iterator[BinaryIO]:
    if out is None:
        yield typer.get_binary_stream("stdout")
        return
    try:
        with out.open("wb") as file:
            yield file
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                yield line
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def _split(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in itertools.chain(blocks, [b""]):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
