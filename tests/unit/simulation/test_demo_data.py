from collections import Counter

import pytest

from splitlearn.errors import DataError
from splitlearn.simulation.demo_data import DEMO_TASKS, MAX_SILOS, URGENCIES, DemoSilo, demo_silos
from splitlearn.tasks import row_texts


def departments(silo: DemoSilo) -> Counter[str]:
    return Counter(str(record.columns["triage"]).split(", ")[1].split(":")[0] for record in silo.records)


class TestDemoSilos:
    def test_sizes_are_uneven(self) -> None:
        assert [len(silo.records) for silo in demo_silos()] == [900, 420, 240]

    def test_is_the_same_every_time(self) -> None:
        first = demo_silos()[0].records[0].columns
        assert demo_silos() == demo_silos()
        assert first == {
            "note": "31m chest pain 14h, T38.0, ate and drank today",
            "triage": "yellow, heart team: two blood lines, then heart trace",
            "urgency": "yellow",
        }

    def test_seed_changes_the_notes(self) -> None:
        assert demo_silos(1, seed=1) != demo_silos(1, seed=0)

    def test_content_is_uneven(self) -> None:
        mixes = [departments(silo) for silo in demo_silos()]
        assert [mix.most_common(1)[0][0] for mix in mixes] == ["heart team", "children team", "nerves team"]
        # What one mostly sees, another seldom does, but does: there is something to learn from the others.
        assert all(len(mix) == 7 for mix in mixes)

    def test_every_urgency_occurs_everywhere(self) -> None:
        for silo in demo_silos():
            assert {record.columns["urgency"] for record in silo.records} == set(URGENCIES)

    def test_style_is_uneven(self) -> None:
        notes = [str(silo.records[0].columns["note"]) for silo in demo_silos()]
        assert [("|" in note, note.startswith("A ")) for note in notes] == [
            (False, False),
            (False, True),
            (True, False),
        ]

    def test_further_hospitals_leave_the_first_as_they_are(self) -> None:
        many = demo_silos(8)
        assert many[:3] == demo_silos(3)
        assert [silo.name for silo in many[3:]] == [
            "harbour-2",
            "hillside-2",
            "riverside-2",
            "harbour-3",
            "hillside-3",
        ]
        assert [len(silo.records) for silo in many[3:]] == [180, 135, 101, 75, 60]
        assert many[3].records[:9] != many[0].records[:9]

    @pytest.mark.parametrize("count", [0, MAX_SILOS + 1])
    def test_refuses_other_counts(self, count: int) -> None:
        with pytest.raises(DataError, match=f"num_silos: {count} hospitals are not served.*1 to {MAX_SILOS}"):
            demo_silos(count)


class TestDemoTasks:
    @pytest.mark.parametrize("kind", ["causal-lm", "sft", "choice"])
    def test_fits_the_records(self, kind: str) -> None:
        task = DEMO_TASKS[kind]
        assert task.kind == kind
        for silo in demo_silos():
            assert len(list(row_texts(silo.records, task=task))) == len(silo.records)

    def test_urgency_is_that_of_the_answer(self) -> None:
        for silo in demo_silos():
            for record in silo.records:
                assert str(record.columns["triage"]).startswith(f"{record.columns['urgency']}, ")
