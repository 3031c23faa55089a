"""Rows written by a tokenizer's chat template, the loss on the answer alone."""

from collections.abc import Callable, Iterator

import pytest

from splitlearn.errors import DataError, ModelError
from splitlearn.spec import ChatSpec, SftTask
from splitlearn.tasks import IGNORED, Record, TextTokenizer, prepare
from splitlearn.tasks.chat import MAX_CHAT_TEMPLATE_CHARACTERS, chat_prompt

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</{{ message['role'] }}>"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
RowsOf = Callable[..., list[Record]]
Ids = Callable[[str], list[int]]
TASK = SftTask(prompt="{q}", answer="{a}", chat=ChatSpec(system="{if s}{s}{end}"))


@pytest.fixture
def chat_tokenizer(tokenizer: TextTokenizer) -> Iterator[TextTokenizer]:
    tokenizer.chat_template = TEMPLATE
    yield tokenizer
    tokenizer.chat_template = None


def written(tokenizer: TextTokenizer, task: SftTask, *rows: Record) -> tuple[list[int], list[int]]:
    """Return what the model reads and does not learn, and what it learns."""
    target = prepare(rows, task=task, tokenizer=tokenizer, max_tokens=200).examples[0].target
    learned = [label for label in target.labels if label != IGNORED]
    return list(target.input_ids[: len(target.input_ids) - len(learned)]), learned


class TestTemplate:
    def test_writes_prompt_and_answer(self, chat_tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf) -> None:
        found = written(chat_tokenizer, TASK, *rows_of({"s": "Be kind.", "q": "Hi", "a": "Ho"}))
        assert found == (
            ids("<system>Be kind.</system><user>Hi</user><assistant>"),
            ids("Ho</assistant>"),
        )

    def test_an_empty_system_message_is_none(
        self, chat_tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        assert written(chat_tokenizer, TASK, *rows_of({"q": "Hi", "a": "Ho"}))[0] == ids(
            "<user>Hi</user><assistant>"
        )

    def test_begin_and_end_tokens_are_its_own_business(
        self, chat_tokenizer: TextTokenizer, rows_of: RowsOf
    ) -> None:
        reads, learns = written(chat_tokenizer, TASK, *rows_of({"q": "Hi", "a": "Ho"}))
        assert {256, 257}.isdisjoint(reads + learns)

    def test_messages_of_a_column_come_before_the_answer(
        self, chat_tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        task = SftTask(answer="{answer}", chat=ChatSpec(messages="messages"))
        before = [
            {"role": role, "content": text}
            for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
        ]
        found = written(chat_tokenizer, task, *rows_of({"messages": before, "answer": "d"}))
        assert found == (
            ids("<user>a</user><assistant>b</assistant><user>c</user><assistant>"),
            ids("d</assistant>"),
        )

    def test_what_a_row_holds_is_no_template(
        self, chat_tokenizer: TextTokenizer, ids: Ids, rows_of: RowsOf
    ) -> None:
        text = "{{ messages }}{% raw %}"
        assert written(chat_tokenizer, TASK, *rows_of({"q": text, "a": "Ho"}))[0] == ids(
            f"<user>{text}</user><assistant>"
        )


class TestRefused:
    def test_a_prompt_without_one_names_the_remedy_of_who_asked(self, tokenizer: TextTokenizer) -> None:
        with pytest.raises(ModelError, match="has no chat template; leave out --chat") as caught:
            chat_prompt([{"role": "user", "content": "Hi"}], tokenizer=tokenizer, remedy="leave out --chat")
        assert "task" not in caught.value.message

    def test_a_tokenizer_without_one(self, tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        with pytest.raises(ModelError, match="has no chat template; leave out the task's chat"):
            written(tokenizer, TASK, *rows_of({"q": "Hi", "a": "Ho"}))

    @pytest.mark.parametrize(
        ("template", "says"),
        [
            ("{{ raise_exception('roles must alternate') }}", "cannot write a conversation of 1 messages"),
            ("{{ messages[9].content }}", "cannot write a conversation of 1 messages"),
            ("{{ ''.__class__.__mro__ }}", "cannot write a conversation of 1 messages"),
            ("{% for m in messages|reverse %}{{ m.content }}{% endfor %}", "the answer cannot be told apart"),
            ("always the same", "the answer cannot be told apart"),
            ("x" * (MAX_CHAT_TEMPLATE_CHARACTERS + 1), f"the limit is {MAX_CHAT_TEMPLATE_CHARACTERS}"),
        ],
    )
    def test_a_template_that_cannot_tell_the_answer_apart(
        self, chat_tokenizer: TextTokenizer, rows_of: RowsOf, template: str, says: str
    ) -> None:
        chat_tokenizer.chat_template = template
        with pytest.raises(ModelError, match=says):
            written(chat_tokenizer, TASK, *rows_of({"q": "Hi", "a": "Ho"}))

    def test_a_column_that_holds_no_messages(self, chat_tokenizer: TextTokenizer, rows_of: RowsOf) -> None:
        task = SftTask(answer="{answer}", chat=ChatSpec(messages="messages"))
        for value in ("text", [{"role": "user"}], [1]):
            with pytest.raises(DataError, match=r"made\.jsonl:1: column 'messages' is no list of messages"):
                written(chat_tokenizer, task, *rows_of({"messages": value, "answer": "d"}))
