"""What a student reads, and what a program reads; hints come one at a time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.exercises.course import DOUBLE
from vitscratch.exercises import Passed, Problem
from vitscratch.exercises.hints import FILE, next_hint
from vitscratch.exercises.report import Report, to_json

PROBLEM = Problem("3 becomes 9", "double(3) is 9,\nexpected 6", "doubling", ("first", "second"), "squared", "Twice")
WRONG = Report(Path("01_double.py"), DOUBLE, "wrong", (Passed("0 stays 0"), PROBLEM), ("it squares",))
OK = Report(Path("01_double.py"), DOUBLE, "ok", (Passed("0 stays 0"),))


def test_order_of_the_text() -> None:
    assert WRONG.text().splitlines() == [
        "01 double                     wrong: squared  (01_double.py)",
        "  right   0 stays 0",
        "  WRONG   3 becomes 9",
        "          double(3) is 9,",
        "          expected 6",
        "          step: doubling",
        "  mistake squared",
        "  hint    --hint gives one, and one more each time",
        '  read    tutorials/01_patches.ipynb, section "Twice"',
    ]


def test_where_the_tutorials_are_if_they_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `pip install`."""
    (tmp_path / "01_patches.ipynb").touch()
    monkeypatch.setattr("vitscratch.exercises.report.TUTORIALS", tmp_path)
    assert "pip" not in WRONG.text() and WRONG.tutorial in WRONG.text()
    (tmp_path / "01_patches.ipynb").unlink()
    for report in (WRONG, replace(WRONG, status="not begun")):
        *_, named, note = report.text().splitlines()
        assert named == '  read    tutorials/01_patches.ipynb, section "Twice"'
        assert note == "          (pip does not install tutorials/: it is a folder of the project's sources)"


def test_hints_as_many_as_asked_for() -> None:
    assert "first" not in WRONG.text() and "second" not in WRONG.text()
    assert "hint    1 of 2: first" in WRONG.text(1) and "second" not in WRONG.text(1)
    assert "hint    2 of 2: second" in WRONG.text(2) and "--solution" not in WRONG.text(2)
    assert "there are no more; --solution shows the library's code" in WRONG.text(3)
    assert WRONG.to_json()["problem"]["hints"] == [] and WRONG.to_json(1)["problem"]["hints"] == ["first"]
    assert WRONG.to_json()["problem"]["hints_there"] == 2


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (OK, "01 double                     ok"),
        (WRONG, "01 double                     wrong: squared"),
        (replace(WRONG, outcomes=(replace(PROBLEM, mistake=None),)), "01 double                     wrong"),
        (replace(OK, status="not begun"), "01 double                     not begun"),
        (replace(OK, status="error"), "01 double                     checker error"),
    ],
)
def test_one_line(report: Report, line: str) -> None:
    assert report.line() == line


def test_a_sentence_is_said_once() -> None:
    assert "it squares" not in WRONG.text()  # of one mistake, the problem has said what this file does
    two = replace(
        WRONG, outcomes=(replace(PROBLEM, mistake="squared + halved"),), mistakes=("3 becomes 9", "it halves")
    )
    assert two.text().count("3 becomes 9") == two.text().count("it halves") == 1


def test_json() -> None:
    found = json.loads(json.dumps(to_json([OK, WRONG], {WRONG.file: 1})))
    assert found["passed"] is False and found["right"] == 1
    right, wrong = found["files"]
    assert right["status"] == "ok" and right["problem"] is None and right["right"] == ["0 stays 0"]
    assert wrong["problem"] == {
        "what": "3 becomes 9",
        "evidence": "double(3) is 9,\nexpected 6",
        "step": "doubling",
        "mistake": "squared",
        "about": ["it squares"],
        "hints": ["first"],
        "hints_there": 2,
    }
    assert to_json([OK], {})["passed"] is True and to_json([], {})["passed"] is False


def test_nothing_reaches_a_terminal_that_it_would_obey() -> None:
    strange = replace(PROBLEM, what="a\x1b[2Jb\rc\udc80")
    report = replace(WRONG, outcomes=(strange,), printed="\x07\n" + "x" * 999, printed_size=1001)
    text = report.text()
    assert r"a\x1b[2Jb\rc\udc80" in text and r"\x07" in text and "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 110
    json.dumps(report.to_json(), ensure_ascii=False).encode()
    everywhere = replace(report, file=Path("a\x1b\udc80.py"), status="error", failure="\x1b[1m", printed="\x07\udc80")
    found = json.dumps(everywhere.to_json(), ensure_ascii=False)
    found.encode()
    for control in ("\\u001b", "\\u0007"):  # as JSON writes one that is left
        assert control not in found
    assert everywhere.to_json()["failure"] == r"\x1b[1m"


def test_of_what_was_printed_the_end_is_shown() -> None:
    report = replace(OK, printed="".join(f"line {i}\n" for i in range(11)), printed_size=123_456)
    *_, head, first, _, _, _, _, _, _, last = report.text().splitlines()
    assert head == "  printed 123,456 bytes; the end of it:" and (first.strip(), last.strip()) == ("line 3", "line 10")
    assert report.to_json()["printed"] == {"bytes": 123_456, "end": report.printed}


def test_a_known_mistake_of_the_model_is_read_about_where_it_is_explained() -> None:
    elsewhere = replace(WRONG, outcomes=(replace(PROBLEM, mistake="pe_column_major"),))
    assert elsewhere.tutorial == 'tutorials/01_patches.ipynb, section "How this goes wrong"'
    assert elsewhere.to_json()["read"] == elsewhere.tutorial


@pytest.fixture
def wrong(tmp_path: Path) -> Report:
    return replace(WRONG, file=tmp_path / "01_double.py")


def test_one_more_hint_each_time(wrong: Report) -> None:
    assert next_hint(wrong, False) == 0 and not (wrong.file.parent / FILE).exists()
    assert [next_hint(wrong, True) for _ in range(5)] == [1, 2, 3, 3, 3]
    assert next_hint(wrong, False) == 0  # and nothing forgotten
    assert next_hint(wrong, True) == 3


def test_another_problem_begins_anew(wrong: Report) -> None:
    other = replace(wrong, outcomes=(replace(PROBLEM, mistake=None),))
    assert [next_hint(one, True) for one in (wrong, wrong, other, other, wrong)] == [1, 2, 1, 2, 1]
    assert next_hint(other, False) == 0
    assert next_hint(wrong, True) == 1  # the other one was seen in between
    third = replace(wrong, outcomes=(replace(PROBLEM, mistake=None, what="5 is wrong"),))  # in the same step
    assert [next_hint(one, True) for one in (other, other, third)] == [1, 2, 1]


def test_each_file_has_its_own_count(wrong: Report) -> None:
    second = replace(wrong, file=wrong.file.with_name("02_triple.py"))
    assert [next_hint(wrong, True), next_hint(second, True), next_hint(wrong, True)] == [1, 1, 2]
    assert next_hint(replace(OK, file=wrong.file), True) == 0
    assert [next_hint(wrong, True), next_hint(second, True)] == [1, 2]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"01_double.py": 3}', '{"01_double.py": {"shown": "x"}}', "\x00"])
def test_a_damaged_memory_is_forgotten(wrong: Report, text: str) -> None:
    (wrong.file.parent / FILE).write_text(text)
    assert next_hint(wrong, True) == 1


def test_a_folder_that_cannot_be_written_to(wrong: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr("vitscratch.exercises.hints.write_atomically", fails)
    assert next_hint(wrong, True) == 1


def test_in_brief_what_is_to_be_minded_is_said() -> None:
    report = replace(OK, outcomes=(Passed("it runs"), Passed("it is fast", "late")))
    assert report.brief() == f"{report.line()}\n  right   it is fast; but late"
    assert replace(OK, outcomes=(Passed("it runs"),)).brief() == report.line()
