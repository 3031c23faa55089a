import subprocess
import sys

import pytest

from splitlearn.families import FAMILIES, UnknownFamilyError, family_of

SERVED = [
    "bloom", "falcon", "gemma2", "gemma3_text", "glm", "glm4", "gpt2", "gpt_neox", "llama", "mistral", "opt",
    "phi", "phi3", "qwen2", "qwen3", "qwen3_moe",
]  # fmt: skip


class TestFamilyOf:
    def test_knows_the_tested_families(self) -> None:
        assert sorted(FAMILIES) == SERVED
        assert all(family_of({"model_type": name}).model_type == name for name in SERVED)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"model_type": "t5", "is_encoder_decoder": True}, "'t5' is an encoder-decoder"),
            ({"model_type": "t5"}, "'t5' is an encoder-decoder"),
            ({"model_type": "bart", "is_encoder_decoder": True}, "'bart' is an encoder-decoder"),
            ({"model_type": "newer", "is_encoder_decoder": True}, "'newer' is an encoder-decoder"),
            ({"model_type": "bert"}, "'bert' is an encoder,"),
            ({"model_type": "mamba"}, "'mamba' is not known"),
            ({"model_type": ["llama"]}, "does not state a model_type"),
            ({}, "does not state a model_type"),
        ],
    )
    def test_refuses_others_by_name(self, config: dict[str, object], message: str) -> None:
        with pytest.raises(UnknownFamilyError, match=message) as refusal:
            family_of(config)
        assert str(refusal.value).endswith(f"use a decoder of one of the families {', '.join(SERVED)}")


class TestNames:
    @pytest.mark.parametrize(
        ("family", "on_disk", "parameter"),
        [
            ("llama", "model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),
            ("llama", "lm_head.weight", "lm_head.weight"),
            ("gpt2", "h.3.attn.c_attn.weight", "transformer.h.3.attn.c_attn.weight"),
            ("opt", "decoder.layers.3.fc1.bias", "model.decoder.layers.3.fc1.bias"),
            ("gpt_neox", "embed_out.weight", "lm_head.weight"),
            (
                "qwen3_moe",
                "model.layers.3.mlp.experts.12.up_proj.weight",
                "model.layers.3.mlp.experts.gate_up_proj",
            ),
            ("qwen3_moe", "model.layers.3.mlp.gate.weight", "model.layers.3.mlp.gate.weight"),
        ],
    )
    def test_on_disk_lead_to_parameters(self, family: str, on_disk: str, parameter: str) -> None:
        assert FAMILIES[family].parameter_of(on_disk) == parameter

    @pytest.mark.parametrize(
        ("family", "parameter", "layer"),
        [
            ("llama", "model.layers.13.mlp.up_proj.weight", 13),
            ("llama", "model.norm.weight", None),
            ("llama", "model.layers.thirteen.weight", None),
            ("gpt2", "transformer.h.0.ln_1.bias", 0),
            ("opt", "model.decoder.layers.2.fc1.bias", 2),
        ],
    )
    def test_tell_the_layer(self, family: str, parameter: str, layer: int | None) -> None:
        assert FAMILIES[family].layer_of(parameter) == layer

    def test_tell_the_ends(self) -> None:
        opt = FAMILIES["opt"]
        before = [
            f"model.decoder.{name}.weight" for name in ("embed_tokens", "embed_positions", "project_in")
        ]
        after = [
            "model.decoder.final_layer_norm.weight",
            "model.decoder.project_out.weight",
            "lm_head.weight",
        ]
        assert [opt.is_before_layers(name) for name in before + after] == [True] * 3 + [False] * 3
        assert [opt.is_after_layers(name) for name in before + after] == [False] * 3 + [True] * 3


class TestImport:
    def test_needs_no_torch(self) -> None:
        code = "import sys; sys.modules['torch'] = None; import splitlearn.planning"
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own interpreter
