"""What the parties export is loaded by plain transformers and PEFT, and computes the same."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from splitlearn.errors import StorageError
from splitlearn.partition import (
    Adapter,
    BatchLayout,
    ModelFilesError,
    PartsError,
    export_result,
    freeze,
    load_silo_blocks,
    load_trunk,
    merge_adapter,
    segment_state,
)
from splitlearn.partition.reading import TensorReader
from splitlearn.partition.segments import Segment
from splitlearn.planning import ModelFolder, Role
from splitlearn.planning.manifest import group_by_file, layer_file
from splitlearn.spec import FullAdapter, LoraAdapter

FolderOf = Callable[[str], ModelFolder]
SiloFolder = Callable[[str], ModelFolder]
LORA = LoraAdapter(r=4, alpha=8)
LAYOUT = BatchLayout((7, 12, 3), "right")
QUIET = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


class Trained:
    """Segments whose trainable tensors were changed, as training would change them."""

    def __init__(self, folder: ModelFolder, adapter: Adapter, *, frozen: bool = False) -> None:
        cut = folder.cut(bottom_layers=1, top_layers=1)
        silo = load_silo_blocks(folder, cut, adapter=adapter, seed=1)
        self.segments: list[Segment] = [
            silo.bottom,
            load_trunk(folder, cut, adapter=adapter, seed=1),
            silo.top,
        ]
        if frozen:
            freeze(silo.bottom)
            freeze(silo.top)
        generator = torch.Generator().manual_seed(2)
        for segment in self.segments:
            for _, parameter in segment.trainable:
                parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)

    @property
    def parts(self) -> list[dict[str, Tensor]]:
        return [segment_state(segment) for segment in self.segments]

    def logits(self) -> Tensor:
        bottom, trunk, top = self.segments
        with torch.no_grad():
            hidden_BTD = LAYOUT.unpack(LAYOUT.pack(bottom(tokens(), LAYOUT)))
            hidden_BTD = LAYOUT.unpack(LAYOUT.pack(trunk(hidden_BTD, LAYOUT)))
            return LAYOUT.pack(top(hidden_BTD, LAYOUT))


def tokens() -> Tensor:
    return torch.randint(3, 67, (LAYOUT.num_rows, LAYOUT.width), generator=torch.Generator().manual_seed(5))


def logits_of(model: Any) -> Tensor:
    with torch.no_grad():
        return LAYOUT.pack(model.eval()(input_ids=tokens(), attention_mask=LAYOUT.attention_mask()).logits)


@contextmanager
def small_files_only() -> Iterator[None]:
    """Let this process write at most 20 kB into any file, as a full disk would.

    Not as a fixture: the test's outcome is written to a file as well, where the output goes to one.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@QUIET
class TestLora:
    @pytest.mark.parametrize("variant", ["llama", "llama-tied", "gpt2", "bloom", "qwen3_moe"])
    def test_loads_in_peft_and_computes_the_same_bits(
        self, variant: str, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        folder = folder_of(variant)
        trained = Trained(folder, LORA)
        export_result(folder, trained.parts, LORA, tmp_path / "adapter")
        base = AutoModelForCausalLM.from_pretrained(folder.path)
        assert not torch.equal(logits_of(base), trained.logits())
        assert torch.equal(logits_of(PeftModel.from_pretrained(base, tmp_path / "adapter")), trained.logits())

    def test_of_a_trunk_alone_adapts_the_trunk_alone(self, folder_of: FolderOf, tmp_path: Path) -> None:
        folder = folder_of("llama")
        trained = Trained(folder, LORA, frozen=True)
        export_result(folder, trained.parts, LORA, tmp_path / "adapter")
        base = AutoModelForCausalLM.from_pretrained(folder.path)
        loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
        assert torch.equal(logits_of(loaded), trained.logits())
        assert len([name for name, _ in loaded.named_parameters() if "lora_A" in name]) == 2 * 3

    def test_keeps_the_jobs_targets_when_all_are_trained(self, folder_of: FolderOf, tmp_path: Path) -> None:
        folder = folder_of("llama")
        export_result(folder, Trained(folder, LORA).parts, LORA, tmp_path / "adapter")
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["target_modules"] == ["q_proj", "v_proj"]  # in this order in every process
        assert (config["r"], config["lora_alpha"], config["inference_mode"]) == (4, 8, True)
        assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]


class TestFull:
    @pytest.mark.parametrize("variant", ["llama-tied", "gemma3_text", "gpt2", "gpt_neox", "qwen3_moe"])
    def test_loads_in_transformers_and_computes_the_same_bits(
        self, variant: str, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        folder = folder_of(variant)
        trained = Trained(folder, FullAdapter())
        export_result(folder, trained.parts, FullAdapter(), tmp_path / "model")
        assert torch.equal(
            logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), trained.logits()
        )

    def test_keeps_what_no_part_holds(self, folder_of: FolderOf, tmp_path: Path) -> None:
        folder = folder_of("llama")
        trained = Trained(folder, FullAdapter(), frozen=True)
        export_result(folder, trained.parts, FullAdapter(), tmp_path / "model")
        assert torch.equal(
            logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), trained.logits()
        )

    def test_keeps_shards_and_companions(self, folder_of: FolderOf, tmp_path: Path) -> None:
        base = tmp_path / "base"
        AutoModelForCausalLM.from_pretrained(folder_of("llama").path).save_pretrained(
            base, max_shard_size="40KB"
        )
        (base / "tokenizer.json").write_text("{}")
        (base / "secret.txt").write_text("not part of a model")
        folder = ModelFolder.open(base)
        trained = Trained(folder, FullAdapter())
        export_result(folder, trained.parts, FullAdapter(), tmp_path / "model")
        written = {path.name for path in (tmp_path / "model").iterdir()}
        assert written == {path.name for path in base.iterdir()} - {"secret.txt"}
        assert len([name for name in written if name.endswith(".safetensors")]) > 1
        assert torch.equal(
            logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), trained.logits()
        )

    def test_states_the_type_that_was_trained(self, folder_of: FolderOf, tmp_path: Path) -> None:
        half = AutoModelForCausalLM.from_pretrained(folder_of("llama").path, dtype=torch.bfloat16)
        half.save_pretrained(tmp_path / "half")
        folder = ModelFolder.open(tmp_path / "half")
        trained = Trained(folder, FullAdapter(), frozen=True)
        export_result(folder, trained.parts, FullAdapter(), tmp_path / "model")
        assert torch.equal(
            logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), trained.logits()
        )


@QUIET
class TestMerge:
    @pytest.mark.parametrize("variant", ["llama", "llama-tied", "gpt2"])
    def test_computes_the_same_up_to_rounding(
        self, variant: str, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        folder = folder_of(variant)
        trained = Trained(folder, LORA)
        export_result(folder, trained.parts, LORA, tmp_path / "adapter")
        merge_adapter(folder.path, tmp_path / "adapter", tmp_path / "merged")
        merged = logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
        base = logits_of(AutoModelForCausalLM.from_pretrained(folder.path))
        # W x + s B (A x) becomes (W + s B A) x: each product rounds differently, by about sqrt(32) units in
        # the last place (2**-24) of sums of 32 terms, over 5 layers: well below 1e-5 of the largest logit.
        tolerance = 1e-5 * trained.logits().abs().max().item()
        assert (merged - trained.logits()).abs().max().item() < tolerance
        assert (base - trained.logits()).abs().max().item() > 100 * tolerance

    def test_writes_a_plain_model(self, folder_of: FolderOf, tmp_path: Path) -> None:
        folder = folder_of("llama")
        export_result(folder, Trained(folder, LORA).parts, LORA, tmp_path / "adapter")
        merge_adapter(folder.path, tmp_path / "adapter", tmp_path / "merged")
        merged = load_file(tmp_path / "merged" / "model.safetensors")
        assert merged.keys() == folder.files.keys()

    def test_never_looks_for_a_pickled_adapter(self, folder_of: FolderOf, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04")
        with pytest.raises(ModelFilesError, match=r"no adapter_model\.safetensors"):
            merge_adapter(folder_of("llama").path, tmp_path, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()


class TestParts:
    def test_given_twice_are_refused(self, folder_of: FolderOf, tmp_path: Path) -> None:
        folder = folder_of("llama")
        part = Trained(folder, LORA).parts[1]
        with pytest.raises(PartsError, match="two parts hold 'base_model"):
            export_result(folder, [part, part], LORA, tmp_path / "adapter")

    @pytest.mark.parametrize("adapter", [LORA, FullAdapter()])
    def test_of_an_unknown_tensor_are_refused(
        self, adapter: Adapter, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        part = {"model.layers.9.mlp.up_proj.weight": torch.zeros(48, 32)}
        with pytest.raises(PartsError, match=r"'model\.layers\.9\.mlp\.up_proj\.weight' is no"):
            export_result(folder_of("llama"), [part], adapter, tmp_path / "out")

    def test_lacking_half_an_adapter_are_refused(self, folder_of: FolderOf, tmp_path: Path) -> None:
        folder = folder_of("llama")
        part = Trained(folder, LORA).parts[1]
        removed, _ = part.popitem()
        with pytest.raises(PartsError, match=f"lack '{removed}'"):
            export_result(folder, [part], LORA, tmp_path / "out")

    def test_of_another_shape_are_refused(self, folder_of: FolderOf, tmp_path: Path) -> None:
        part = {"model.layers.1.mlp.up_proj.weight": torch.zeros(3, 32)}
        with pytest.raises(PartsError, match=r"\(3, 32\) in the parts, \(48, 32\)"):
            export_result(folder_of("llama"), [part], FullAdapter(), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_that_are_empty_are_refused(self, folder_of: FolderOf, tmp_path: Path) -> None:
        with pytest.raises(PartsError, match="any LoRA tensor"):
            export_result(folder_of("llama"), [{}], LORA, tmp_path / "out")


class TestPlace:
    def test_that_is_taken_is_refused(self, folder_of: FolderOf, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "precious").write_text("kept")
        folder = folder_of("llama")
        with pytest.raises(StorageError, match="out exists already"):
            export_result(folder, Trained(folder, LORA).parts, LORA, tmp_path / "out")
        assert (tmp_path / "out" / "precious").read_text() == "kept"

    def test_that_is_an_empty_folder_is_used(self, folder_of: FolderOf, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        folder = folder_of("llama")
        export_result(folder, Trained(folder, LORA).parts, LORA, tmp_path / "out")
        assert (tmp_path / "out" / "adapter_config.json").is_file()

    def test_that_cannot_be_made_is_named(self, folder_of: FolderOf, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        folder = folder_of("llama")
        with pytest.raises(StorageError, match=r"file/out could not be written .* needs \d+ bytes"):
            export_result(folder, Trained(folder, LORA).parts, LORA, tmp_path / "file" / "out")

    @pytest.mark.parametrize("adapter", [LoraAdapter(r=32), FullAdapter()])
    def test_without_room_is_left_as_it_was(
        self, adapter: Adapter, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        folder = folder_of("llama")
        trained = Trained(folder, adapter)
        refused = pytest.raises(StorageError, match=r"out could not be written .* needs \d+ bytes: make room")
        with refused, small_files_only():
            export_result(folder, trained.parts, adapter, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_without_room_for_the_estimate_is_refused_before_writing(
        self, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        free = shutil.disk_usage(tmp_path).free
        folder = folder_of("llama")
        huge = torch.zeros(1).expand(free // 4 + (1 << 20))
        part = {"model.norm.weight": huge}
        with pytest.raises(StorageError, match=r"only \d+ bytes are free"):
            export_result(folder, [part], FullAdapter(), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


@QUIET
class TestFolderOfASilo:
    """It holds the files of bottom and top only; the trunk's tensors all come from the trunk."""

    @pytest.fixture
    def silo_folder(self, folder_of: FolderOf, tmp_path: Path) -> Callable[[str], ModelFolder]:
        def of(variant: str) -> ModelFolder:
            whole = folder_of(variant)
            target = tmp_path / "silo"
            by_layer(whole, target)
            for number in whole.cut(bottom_layers=1, top_layers=1).layers(Role.TRUNK):
                (target / layer_file(number)).unlink()
            return ModelFolder.open(target)

        return of

    @pytest.mark.parametrize("variant", ["llama", "llama-tied", "gpt2", "qwen3_moe"])
    def test_is_enough_for_a_whole_model(
        self, variant: str, folder_of: FolderOf, silo_folder: SiloFolder, tmp_path: Path
    ) -> None:
        trained = Trained(folder_of(variant), FullAdapter(), frozen=True)
        export_result(silo_folder(variant), trained.parts, FullAdapter(), tmp_path / "result")
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "result")
        assert torch.equal(logits_of(loaded), trained.logits())

    def test_without_the_trunk_is_refused_by_file(
        self, folder_of: FolderOf, silo_folder: SiloFolder, tmp_path: Path
    ) -> None:
        trained = Trained(folder_of("llama"), FullAdapter())
        with pytest.raises(PartsError, match=r"layer-00001\.safetensors is absent"):
            export_result(
                silo_folder("llama"), [trained.parts[0], trained.parts[2]], FullAdapter(), tmp_path / "x"
            )

    def test_with_a_trunk_of_another_shape_is_refused(
        self, folder_of: FolderOf, silo_folder: SiloFolder, tmp_path: Path
    ) -> None:
        trained = Trained(folder_of("llama"), FullAdapter(), frozen=True)
        parts = trained.parts
        name = "model.layers.1.mlp.up_proj.weight"
        parts[1][name] = parts[1][name][:-1]
        with pytest.raises(PartsError, match=rf"{name}' has shape \(47, 32\) in the parts"):
            export_result(silo_folder("llama"), parts, FullAdapter(), tmp_path / "x")

    def test_names_the_base_model_as_told(
        self, folder_of: FolderOf, silo_folder: SiloFolder, tmp_path: Path
    ) -> None:
        trained = Trained(folder_of("llama"), LORA)
        export_result(silo_folder("llama"), trained.parts, LORA, tmp_path / "adapter", base_name="hub/model")
        config = json.loads((tmp_path / "adapter/adapter_config.json").read_bytes())
        assert config["base_model_name_or_path"] == "hub/model"


def by_layer(whole: ModelFolder, target: Path) -> None:
    """Save a model as it is registered: a file per layer."""
    target.mkdir()
    groups = group_by_file(whole)
    weight_map = {info.name: file for file, infos in groups.items() for info in infos}
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    shutil.copyfile(whole.path / "config.json", target / "config.json")
    with TensorReader(whole) as reader:
        for file, infos in groups.items():
            save_file({info.name: reader.read(info.name) for info in infos}, target / file)
