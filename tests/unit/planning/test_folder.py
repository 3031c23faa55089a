import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from splitlearn.families import UnknownFamilyError
from splitlearn.planning import CutError, ModelFilesError, ModelFolder

WriteModel = Callable[..., Path]
Llama = Callable[..., Any]


class TestOpen:
    def test_tells_what_the_model_is(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model())
        assert (folder.family.model_type, folder.num_layers, folder.hidden_size) == ("llama", 4, 8)
        assert not folder.ties_embeddings
        assert len(folder.tensors()) == 19

    @pytest.mark.parametrize(
        ("config", "tied"),
        [({}, False), ({"tie_word_embeddings": True}, True), ({"model_type": "gemma2"}, True)],
    )
    def test_tells_whether_embeddings_are_tied(
        self, config: dict[str, Any], *, tied: bool, write_model: WriteModel
    ) -> None:
        assert ModelFolder.open(write_model(**config)).ties_embeddings is tied

    def test_counts_a_tied_head_as_the_embedding(self, write_model: WriteModel) -> None:
        folder = ModelFolder.open(write_model(tie_word_embeddings=True))
        assert folder.sources["model.embed_tokens.weight"] == ("model.embed_tokens.weight", "lm_head.weight")
        assert "lm_head.weight" not in folder.sources

    @pytest.mark.parametrize(
        "keys", [{"n_layer": 3, "n_embd": 8}, {"num_hidden_layers": 3, "hidden_size": 8}]
    )
    def test_reads_gpt2s_own_words(self, keys: dict[str, int], write_model: WriteModel) -> None:
        path = write_model()
        (path / "config.json").write_text(json.dumps({"model_type": "gpt2", **keys}))
        assert ModelFolder.open(path).num_layers == 3

    def test_reads_shards_only_when_asked(
        self, write_model: WriteModel, write_tensors: Callable[..., None], llama: Llama
    ) -> None:
        path, tensors = write_model(), llama()
        (path / "model.safetensors").unlink()
        weight_map = {name: "b.safetensors" if ".3." in name else "a.safetensors" for name in tensors}
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        write_tensors(path / "a.safetensors", {n: t for n, t in tensors.items() if ".3." not in n})
        folder = ModelFolder.open(path)
        assert folder.tensor("model.norm.weight").shape == (8,)
        with pytest.raises(ModelFilesError, match=r"b\.safetensors cannot be read"):
            folder.tensors()

    def test_refuses_an_index_that_names_an_absent_tensor(
        self, write_model: WriteModel, write_tensors: Callable[..., None]
    ) -> None:
        path = write_model()
        index = {"weight_map": {"lm_head.weight": "a.safetensors"}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        write_tensors(path / "a.safetensors", {"other": ("F32", (1,))})
        with pytest.raises(ModelFilesError, match=r"a\.safetensors holds 'lm_head.weight', but it does not"):
            ModelFolder.open(path).tensors()


class TestRefusals:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFilesError, match="nowhere is not a folder"):
            ModelFolder.open(tmp_path / "nowhere")

    def test_a_missing_config(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFilesError, match=r"config\.json cannot be read.*save_pretrained"):
            ModelFolder.open(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", "\xff"])
    def test_a_config_that_is_no_json_object(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(ModelFilesError, match=r"config\.json is not"):
            ModelFolder.open(tmp_path)

    def test_an_unknown_family(self, write_model: WriteModel) -> None:
        with pytest.raises(UnknownFamilyError, match="'mamba'"):
            ModelFolder.open(write_model(model_type="mamba"))

    def test_a_config_nested_too_deeply(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
        with pytest.raises(ModelFilesError, match=r"config\.json is nested too deeply; "):
            ModelFolder.open(tmp_path)

    @pytest.mark.parametrize(
        ("quantization", "says"),
        [({"quant_method": "gptq", "bits": 4}, "gptq"), ({"load_in_4bit": True}, "of no stated method")],
    )
    def test_quantised_weights(
        self, quantization: dict[str, Any], says: str, write_model: WriteModel
    ) -> None:
        with pytest.raises(ModelFilesError, match=rf"quantization_config \({says}\).* the unquantised model"):
            ModelFolder.open(write_model(quantization_config=quantization))

    def test_weights_of_more_layers_than_the_config_has(self, write_model: WriteModel) -> None:
        with pytest.raises(ModelFilesError, match="num_hidden_layers is 3, but the weights have 4 layers"):
            ModelFolder.open(write_model(num_hidden_layers=3))

    @pytest.mark.parametrize("value", [None, 0, -3, "4", True, 2.5])
    def test_a_number_of_layers_that_is_no_count(self, value: object, write_model: WriteModel) -> None:
        with pytest.raises(ModelFilesError, match="num_hidden_layers is"):
            ModelFolder.open(write_model(num_hidden_layers=value))

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
    def test_pickled_weights(self, name: str, write_model: WriteModel) -> None:
        path = write_model()
        (path / "model.safetensors").rename(path / name)
        with pytest.raises(ModelFilesError, match=rf"{name} is a pickle.*convert the model to safetensors"):
            ModelFolder.open(path)

    def test_no_weights(self, write_model: WriteModel) -> None:
        path = write_model()
        (path / "model.safetensors").unlink()
        with pytest.raises(ModelFilesError, match=r"neither model\.safetensors nor"):
            ModelFolder.open(path)

    @pytest.mark.parametrize("file", ["../other.safetensors", "/etc/passwd", "pytorch_model.bin", 3])
    def test_an_index_that_leads_elsewhere(self, file: object, write_model: WriteModel) -> None:
        path = write_model()
        (path / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"lm_head.weight": file}})
        )
        with pytest.raises(ModelFilesError, match="no safetensors file of the folder"):
            ModelFolder.open(path)

    @pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": []}])
    def test_an_index_without_a_map(self, index: object, write_model: WriteModel) -> None:
        path = write_model()
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelFilesError, match="no weight_map"):
            ModelFolder.open(path)

    def test_a_cut_larger_than_the_model(self, write_model: WriteModel) -> None:
        with pytest.raises(CutError, match=r"2 bottom \+ 2 top = 4 .* has 4"):
            ModelFolder.open(write_model()).cut(bottom_layers=2, top_layers=2)
