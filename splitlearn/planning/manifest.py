"""What a registered model consists of: files by layer, addressed by content, so that a party fetches its own.

The control plane writes a manifest; every party checks its digest against the signed specification, and
every file's against the manifest. Torch-free.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from splitlearn.families import family_of
from splitlearn.planning.cut import Cut, Role
from splitlearn.planning.errors import ModelFilesError
from splitlearn.planning.folder import ModelFolder
from splitlearn.planning.headers import TensorInfo

MAX_MANIFEST_BYTES = 64 << 20
BEFORE, AFTER, OTHER = "before.safetensors", "after.safetensors", "other.safetensors"
_DIGEST_CONTEXT = b"trunkline/model-manifest/v1\0"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BlobFile(_Frozen):
    """A file by the digest of its content."""

    name: FileName
    digest: Digest
    num_bytes: int = Field(ge=0)


class TensorEntry(_Frozen):
    """A tensor as its file's header has it."""

    dtype: str = Field(max_length=16)
    shape: tuple[Annotated[int, Field(ge=0)], ...] = Field(max_length=16)
    num_bytes: int = Field(ge=0)


class TensorFile(BlobFile):
    """A safetensors file with one layer's tensors, or those before or after the layers."""

    tensors: dict[str, TensorEntry]


class ModelManifest(_Frozen):
    """A registered model.

    Attributes:
        source: Where it came from: a hub id, or a folder's name.
        family: ``model_type`` of its config.
        config: The content of config.json.
        companions: Tokenizer and generation settings.
        files: Tensor files; each tensor is in one of them.
    """

    version: Literal[1] = 1
    source: str = Field(max_length=1024)
    family: str
    num_layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    num_parameters: int = Field(ge=0)
    num_bytes: int = Field(ge=0)
    config: dict[str, Any]
    companions: tuple[BlobFile, ...]
    files: tuple[TensorFile, ...]

    @classmethod
    def parse(cls, data: bytes, *, digest: str | None = None) -> Self:
        """Read a manifest.

        Args:
            data: Its canonical bytes.
            digest: What they must hash to, where it is known.

        Raises:
            ModelFilesError: They do not, or are no manifest.
        """
        if digest is not None and _digest_of(data) != digest:
            raise ModelFilesError(
                f"the model's manifest has digest {_digest_of(data)[:16]}..., wanted was {digest[:16]}...; "
                "it was exchanged after the job was signed, or damaged: refuse it"
            )
        try:
            manifest = cls.model_validate_json(data)
        except ValidationError as error:
            raise ModelFilesError(
                f"the model's manifest is malformed: {error.error_count()} fields"
            ) from error
        family_of(manifest.config)
        return manifest

    def canonical_bytes(self) -> bytes:
        """Return the one byte string that is digested."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def digest(self) -> str:
        """Return the SHA-256 of the canonical bytes in a context of its own, in hexadecimal."""
        return _digest_of(self.canonical_bytes())

    def files_for(self, roles: Iterable[Role], cut: Cut) -> tuple[TensorFile, ...]:
        """Return the tensor files that these segments of a cut are loaded from."""
        wanted: set[str] = set()
        for role in roles:
            wanted |= {layer_file(number) for number in cut.layers(role)}
            if role is Role.BOTTOM or (role is Role.TOP and self.folder().ties_embeddings):
                wanted.add(BEFORE)
            if role is Role.TOP:
                wanted.add(AFTER)
        return tuple(file for file in self.files if file.name in wanted)

    def index(self) -> dict[str, Any]:
        """Return the content of ``model.safetensors.index.json``: which file holds which tensor."""
        places = {name: file.name for file in self.files for name in file.tensors}
        return {"metadata": {"total_size": self.num_bytes}, "weight_map": dict(sorted(places.items()))}

    def folder(self, path: Path = Path("registered")) -> ModelFolder:
        """Return the model as planning sees it, without any file.

        Args:
            path: For messages.
        """
        family = family_of(self.config)
        headers = {file.name: _header(file, path) for file in self.files}
        return ModelFolder(
            path=path,
            config=self.config,
            family=family,
            num_layers=self.num_layers,
            hidden_size=self.hidden_size,
            ties_embeddings=bool(self.config.get("tie_word_embeddings", family.ties_embeddings)),
            files={name: file for file, header in headers.items() for name in header},
            _headers=headers,
        )


def layer_file(number: int) -> str:
    """Return the name of a layer's file."""
    return f"layer-{number:05d}.safetensors"


def group_by_file(folder: ModelFolder) -> dict[str, list[TensorInfo]]:
    """Sort a model's tensors by the file that they go into, files and tensors in a fixed order."""
    groups: dict[str, list[TensorInfo]] = {}
    for info in sorted(folder.tensors(), key=lambda info: info.name):
        groups.setdefault(_file_of(folder, info.name), []).append(info)
    return dict(sorted(groups.items()))


def _file_of(folder: ModelFolder, tensor: str) -> str:
    parameter = folder.parameter_of(tensor)
    layer = folder.family.layer_of(parameter)
    if layer is not None:
        return layer_file(layer)
    if folder.family.is_before_layers(parameter):
        return BEFORE
    return AFTER if folder.family.is_after_layers(parameter) else OTHER


def _header(file: TensorFile, path: Path) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(name, path / file.name, entry.dtype, entry.shape, entry.num_bytes)
        for name, entry in file.tensors.items()
    }


def _digest_of(data: bytes) -> str:
    return hashlib.sha256(_DIGEST_CONTEXT + data).hexdigest()
