from pathlib import Path

import pytest

from splitlearn.errors import DataError
from splitlearn.spec import CausalLmTask, ChoiceTask, SftTask
from splitlearn.tasks import (
    ColumnMapping,
    DataFormat,
    Record,
    SiloData,
    TextTokenizer,
    load_silo_data,
    prepare_silo_data,
)


def load(path: Path, tokenizer: TextTokenizer, *, max_tokens: int = 64, text: str = "{text}") -> SiloData:
    return load_silo_data(
        path,
        silo_name="north",
        task=CausalLmTask(text=text),
        tokenizer=tokenizer,
        max_tokens=max_tokens,
        holdout=0.1,
        seed=0,
    )


class TestLoadSiloData:
    def test_report_adds_up(self, tmp_path: Path, tokenizer: TextTokenizer) -> None:
        path = tmp_path / "rows.txt"
        path.write_text("".join(f"{'x' * n}\n" for n in range(1, 101)))
        data = load(path, tokenizer, max_tokens=52)
        report = data.report
        assert (report.rows, report.truncated, report.answers_cut, report.dropped) == (100, 50, 50, 0)
        assert len(data.training) == report.training
        assert len(data.heldout) == report.heldout == 100 - report.training
        assert report.training_tokens == sum(len(row.input_ids) for row in data.training)
        assert report.label_tokens == report.training_tokens - report.training
        assert (
            "50 cut to 52 tokens (0 prompts on the left by 0 tokens, "
            "50 answers or texts on the right by 1275)" in report.describe()
        )

    def test_dropped_rows_are_told(self, bare_tokenizer: TextTokenizer) -> None:
        records = [Record({"text": text}, "m", 1) for text in ("", "ab", "cd")]
        data = prepare_silo_data(
            records,
            silo_name="a",
            task=CausalLmTask(),
            tokenizer=bare_tokenizer,
            max_tokens=9,
            holdout=0.5,
            seed=0,
        )
        assert (
            data.report.describe() == "3 rows: 1 to train on, 1 held out; 1 without a token to learn dropped"
        )

    def test_is_the_same_every_time(self, tmp_path: Path, tokenizer: TextTokenizer) -> None:
        path = tmp_path / "rows.txt"
        path.write_text("".join(f"row {n}\n" for n in range(50)))
        assert load(path, tokenizer) == load(path, tokenizer)

    def test_repr_shows_no_token(self, tmp_path: Path, tokenizer: TextTokenizer) -> None:
        path = tmp_path / "rows.txt"
        path.write_text("one\ntwo\n")
        assert repr(load(path, tokenizer)) == "SiloData('north', 2 rows: 1 to train on, 1 held out)"

    def test_one_row_is_too_few(self, tmp_path: Path, tokenizer: TextTokenizer) -> None:
        path = tmp_path / "rows.txt"
        path.write_text("one\n")
        with pytest.raises(DataError, match=r"\.\w+: silo 'north': 1 usable rows, needs at least 2"):
            load(path, tokenizer)

    def test_template_without_its_column(self, tmp_path: Path, tokenizer: TextTokenizer) -> None:
        path = tmp_path / "rows.txt"
        path.write_text("one\ntwo\n")
        with pytest.raises(DataError, match=r"rows\.txt:1: no column 'story'; the row has 'text'"):
            load(path, tokenizer, text="{story}")

    def test_choice_trains_on_the_right_candidate(self, tmp_path: Path, tokenizer: TextTokenizer) -> None:
        path = tmp_path / "rows.data"
        path.write_text(
            "".join(f"note {n}\t{n % 2}\n" for n in range(-1, 40)).replace("note -1\t1", "body\tgold")
        )
        data = load_silo_data(
            path,
            silo_name="a",
            task=ChoiceTask(prompt="{text}: ", answers={"0": "even", "1": "odd"}),
            tokenizer=tokenizer,
            max_tokens=64,
            holdout=0.2,
            seed=0,
            columns=ColumnMapping.parse("text=body,label=gold"),
            data_format=DataFormat.TSV,
        )
        assert {row.num_label_tokens for row in data.training} == {3, 4}
        assert {len(example.candidates) for example in data.heldout} == {2}


class TestPublicFiles:
    def test_sst2_is_balanced_between_its_parts(
        self, test_data: Path, stories_tokenizer: TextTokenizer
    ) -> None:
        data = load_silo_data(
            test_data / "data/glue/SST-2/dev.tsv",
            silo_name="a",
            task=ChoiceTask(prompt="{sentence}", answers={"0": "bad", "1": "good"}),
            tokenizer=stories_tokenizer,
            max_tokens=128,
            holdout=0.25,
            seed=0,
        )
        # 872 rows: five standard deviations of the held-out count are 64 rows.
        assert abs(data.report.heldout - 218) < 64
        right = sum(example.right for example in data.heldout) / data.report.heldout
        # The file has 51 % positive rows; five standard deviations of 200 draws are 18 %.
        assert abs(right - 0.51) < 0.18

    def test_sft_on_public_csv(self, test_data: Path, stories_tokenizer: TextTokenizer) -> None:
        data = load_silo_data(
            test_data / "data/e2e_nlg/devset.csv",
            silo_name="a",
            task=SftTask(prompt="{mr}\n", answer="{ref}"),
            tokenizer=stories_tokenizer,
            max_tokens=512,
            holdout=0.1,
            seed=0,
        )
        assert data.report.rows == 4672
        assert data.report.truncated == 0
        assert 0 < data.report.label_tokens < data.report.training_tokens
