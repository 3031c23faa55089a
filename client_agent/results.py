"""The silo's whole result: its own trained tensors and the trunk's, as what plain libraries load."""

import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from client_agent.places import JobFolder
from client_agent.preparation import Prepared
from client_agent.training_loop import final_checkpoints, trained_parts
from splitlearn.errors import StorageError
from splitlearn.partition import export_result


def export_whole(prepared: Prepared, folder: JobFolder, *, trunk: Path, base_name: str) -> Path:
    """Write the result of a job whose last round this silo has on disk, and whose trunk was downloaded.

    Args:
        prepared: The job.
        folder: Holds the checkpoints, and gets the result.
        trunk: The trunk's tensors.
        base_name: What a PEFT adapter calls its base model.

    Raises:
        StorageError: A checkpoint is missing, or the disk is full.
        PartsError: The trunk's tensors are not this model's.
    """
    checkpoints, evaluation = final_checkpoints(prepared, folder), prepared.spec.evaluation
    # Where the evaluations may end a job early, its last round is the last one that was saved.
    last_round = checkpoints.last_round() if evaluation.patience_evaluations else prepared.spec.rounds
    state = checkpoints.load(last_round)
    try:
        trunk_state = load_file(trunk)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"the trunk's result {trunk} cannot be read ({error}); retry the job") from error
    bottom, top = trained_parts(prepared, state)
    _make_way(folder.result)
    export_result(
        prepared.blocks_folder,
        (bottom, trunk_state, top),
        prepared.spec.adapter,
        folder.result,
        base_name=base_name,
    )
    return folder.result


def _make_way(result: Path) -> None:
    """Remove a result of this very job: a process was killed before it could say that it had it."""
    try:
        if result.exists():
            shutil.rmtree(result)
    except OSError as error:
        raise StorageError(
            f"cannot replace {result} ({error.strerror}); correct its permissions, then retry the job"
        ) from error
