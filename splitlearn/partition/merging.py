"""Merges a LoRA adapter into the weights of its base model."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM

from splitlearn.errors import ModelError
from splitlearn.partition.exporting import SMALL_FILES_BYTES, copy_companions
from splitlearn.partition.skeleton import BUILD_LOCK
from splitlearn.partition.whole_folder import whole_folder
from splitlearn.planning import ModelFilesError, ModelFolder


def merge_adapter(model_dir: Path, adapter_dir: Path, out_dir: Path) -> None:
    """Write a plain model folder whose weights include a LoRA adapter's update.

    The whole model is held in memory meanwhile, in the type of its files: merged into half-precision
    weights, the update is rounded to them.

    Args:
        model_dir: The base model.
        adapter_dir: A PEFT adapter folder, as written by ``export_result``.
        out_dir: Where to; it must not exist, or be empty. It appears whole or not at all.

    Raises:
        ModelError: A folder is not what it should be, or they do not belong together.
        StorageError: The result cannot be written; the message names path and space needed.
    """
    folder = ModelFolder.open(model_dir)
    if not (adapter_dir / "adapter_model.safetensors").is_file():
        # PEFT would go on to look for a pickle.
        raise ModelFilesError(
            f"{adapter_dir} has no adapter_model.safetensors; give a PEFT adapter folder in safetensors"
        )
    needed = sum(info.num_bytes for info in folder.tensors()) + SMALL_FILES_BYTES
    with whole_folder(out_dir, num_bytes=needed) as temporary:
        _merged(folder, adapter_dir).save_pretrained(temporary)
        copy_companions(folder.path, temporary)


def _merged(folder: ModelFolder, adapter_dir: Path) -> Any:
    try:
        with BUILD_LOCK:
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder.path, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
            return PeftModel.from_pretrained(model, str(adapter_dir)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter {adapter_dir} cannot be merged into {folder.path}: {error}; "
            f"they do not belong together"
        ) from error
