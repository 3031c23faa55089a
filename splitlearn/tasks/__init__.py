"""Records of a silo's data to token batches with labels, and what evaluation says of them.

From the file to the step: :func:`~splitlearn.records.read_records`, :class:`Template` and the
tasks of the specification, :func:`prepare` (tokens, labels, truncation), :func:`split_holdout`,
:class:`BatchPlan` and :class:`EvaluationPlan`. :func:`load_silo_data` does all of it. The formats are
described in ``docs/data.md``. Everything before ``batches`` and ``scoring`` needs no torch.
"""

from splitlearn.records import (
    DEFAULT_LIMITS,
    ColumnMapping,
    DataFormat,
    Layout,
    ReadLimits,
    Record,
    format_of,
    read_records,
    write_records,
)
from splitlearn.tasks.batches import (
    BatchPlan,
    TokenBatch,
    collate,
    concatenate_batches,
)
from splitlearn.tasks.chance import keyed_digest, keyed_fraction, keyed_random
from splitlearn.tasks.choice_scores import ClassCounts, Score, count_classes, macro_f1
from splitlearn.tasks.evaluation import EvaluationPlan, EvaluationResult
from splitlearn.tasks.examples import Prepared, prepare
from splitlearn.tasks.holdout import Split, split_holdout
from splitlearn.tasks.rows import IGNORED, Example, TokenRow
from splitlearn.tasks.scoring import LossSum, RowScore, best_candidate, row_scores, total_loss
from splitlearn.tasks.silo_data import DataReport, SiloData, load_silo_data, prepare_silo_data
from splitlearn.tasks.template import Template
from splitlearn.tasks.text_scores import Rouge, bleu_4, exact_match, mean_rouge, rouge, token_f1
from splitlearn.tasks.texts import RowTexts, Task, UnknownLabelsError, refuse_unfit_row, row_texts
from splitlearn.tasks.tokenizing import TextTokenizer, encode_texts, load_tokenizer, padding_id

__all__ = [
    "DEFAULT_LIMITS",
    "IGNORED",
    "BatchPlan",
    "ClassCounts",
    "ColumnMapping",
    "DataFormat",
    "DataReport",
    "EvaluationPlan",
    "EvaluationResult",
    "Example",
    "Layout",
    "LossSum",
    "Prepared",
    "ReadLimits",
    "Record",
    "Rouge",
    "RowScore",
    "RowTexts",
    "Score",
    "SiloData",
    "Split",
    "Task",
    "Template",
    "TextTokenizer",
    "TokenBatch",
    "TokenRow",
    "UnknownLabelsError",
    "best_candidate",
    "bleu_4",
    "collate",
    "concatenate_batches",
    "count_classes",
    "encode_texts",
    "exact_match",
    "format_of",
    "keyed_digest",
    "keyed_fraction",
    "keyed_random",
    "load_silo_data",
    "load_tokenizer",
    "macro_f1",
    "mean_rouge",
    "padding_id",
    "prepare",
    "prepare_silo_data",
    "read_records",
    "refuse_unfit_row",
    "rouge",
    "row_scores",
    "row_texts",
    "split_holdout",
    "token_f1",
    "total_loss",
    "write_records",
]
