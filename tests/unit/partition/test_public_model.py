"""The same on a real pretrained model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from splitlearn.partition import BatchLayout, PaddingSide, load_silo_blocks, load_trunk
from splitlearn.planning import ModelFolder

STORIES = [
    "Once upon a time, there was a little girl named Lily.",
    "The dog",
    "Tom and Sam went to the park to play.",
]


class TestStories260K:
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_composes_to_the_whole_and_predicts_text(self, side: PaddingSide, test_data: Path) -> None:
        path = test_data / "models" / "stories260K"
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side=side)
        batch = tokenizer(STORIES, return_tensors="pt", padding=True)
        layout = BatchLayout(tuple(batch["attention_mask"].sum(1).tolist()), side)
        assert torch.equal(batch["attention_mask"], layout.attention_mask())

        folder = ModelFolder.open(path)
        cut = folder.cut(bottom_layers=1, top_layers=1)
        silo, trunk = load_silo_blocks(folder, cut), load_trunk(folder, cut)
        whole = AutoModelForCausalLM.from_pretrained(path)
        with torch.no_grad():
            hidden_BTD = layout.unpack(layout.pack(silo.bottom(batch["input_ids"], layout)))
            hidden_BTD = layout.unpack(layout.pack(trunk(hidden_BTD, layout)))
            logits_BTV = silo.top(hidden_BTD, layout)
            expected_BTV = whole(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        valid_BT = layout.valid()
        assert torch.equal(logits_BTV[valid_BT], expected_BTV[valid_BT])

        last = batch["input_ids"].shape[1] - 1 if side == "left" else layout.lengths[0] - 1
        first_logits_TV = logits_BTV[0, last - layout.lengths[0] + 1 : last]
        first_ids_T = batch["input_ids"][0, last - layout.lengths[0] + 2 : last + 1]
        loss = torch.nn.functional.cross_entropy(first_logits_TV, first_ids_T)
        assert loss < 2.5  # chance among its 512 tokens is 6.2
