import json
import os
import subprocess
import sys

import pytest

from jaxgkd.errors import ConfigError, DataError
from jaxgkd.teachers.answers import Answer, AnswerFile, Key, read_answers

A, B, C = (Answer(smiles, f"text of {smiles}\nön\u2028", "1f", "m", 3, 4, "stop") for smiles in ("CC", "CO", "CN"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "answers.jsonl"


def written(path, *answers):
    with AnswerFile(path) as file:
        for answer in answers:
            file.append(answer)
    return path.read_bytes()


def test_answers_are_on_the_disk_before_the_file_is_closed_and_read_back(path):
    with AnswerFile(path) as file:
        file.append(A)
        assert read_answers(path) == [A]
        file.append(B)
        assert A.key in file and C.key not in file and file[B.key] == B
    assert read_answers(path) == [A, B]
    with AnswerFile(path) as file:
        assert file[A.key] == A and file.notes == ()


def test_anybody_can_read_pairs_of_smiles_and_text(path):
    lines = written(path, A, B).decode().split("\n")
    assert lines.pop() == ""
    assert [(json.loads(line)["smiles"], json.loads(line)["text"]) for line in lines] == [
        (answer.smiles, answer.text) for answer in (A, B)
    ]


def test_lines_written_by_hand_are_read_and_kept_as_they_are(path):
    path.parent.mkdir()
    by_hand = b'{"smiles": "CF", "text": "mine", "model": null, "source": "notebook"}'
    path.write_bytes(b"\xef\xbb\xbf" + by_hand)
    with AnswerFile(path) as file:
        assert file.notes == ()
        file.append(B)
        file.append(A)
        file.finish([A.key, B.key])
    assert [answer.smiles for answer in read_answers(path)] == ["CC", "CO", "CF"]
    assert path.read_bytes().endswith(b"\n" + by_hand + b"\n")


def test_finishing_puts_answers_into_order_before_those_of_others(path):
    other = Answer("CC", "older", "00")
    with AnswerFile(path) as file:
        for answer in (C, other, B, A):
            file.append(answer)
        file.finish([A.key, Key("CF", "1f"), B.key, A.key, C.key])
    assert read_answers(path) == [A, B, C, other]
    assert sorted(os.listdir(path.parent)) == [".answers.jsonl.lock", "answers.jsonl"]


@pytest.mark.parametrize("kept", [1, 20, -2])
def test_a_torn_last_line_is_cut_off_and_the_next_one_stands_alone(path, kept):
    whole = written(path, A)
    line = written(path, B)[len(whole) :]
    path.write_bytes(whole + line[:kept])
    assert read_answers(path) == [A]
    with AnswerFile(path) as file:
        assert len(file.notes) == 1 and "half-written" in file.notes[0]
        assert B.key not in file
        assert path.read_bytes() == whole
        file.append(C)
    assert read_answers(path) == [A, C]


def test_a_last_line_that_lacks_its_end_only_is_kept(path):
    content = written(path, A, B)
    path.write_bytes(content[:-1])
    with AnswerFile(path) as file:
        assert B.key in file and file.notes == ()
        file.append(C)
    assert read_answers(path) == [A, B, C]


@pytest.mark.parametrize(
    "line",
    [
        b"{broken",
        b"[]",
        b'{"text": "x"}',
        b'{"smiles": "C"}',
        b'{"smiles": "C", "text": 3}',
        b'{"smiles": "C", "text": "x", "input_tokens": "4"}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_changed(path, line):
    content = written(path, A, B).replace(b"\n", b"\n" + line + b"\n", 1)
    path.write_bytes(content)
    for opening in (AnswerFile, read_answers):
        with pytest.raises(DataError, match="row 2") as caught:
            opening(path)
        assert caught.value.file == path
        assert path.read_bytes() == content


def test_a_second_writer_is_refused_until_the_first_has_gone(path):
    second = f"from jaxgkd.teachers.answers import AnswerFile; AnswerFile({str(path)!r})"
    with AnswerFile(path):
        ended = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True, timeout=60)
        assert f"is being written by process {os.getpid()}" in ended.stderr
    written(path, A)


def test_a_full_disk_leaves_whole_lines_only(path, monkeypatch):
    write = os.write
    with AnswerFile(path) as file:
        file.append(A)
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
        with pytest.raises(ConfigError, match="No space left"):
            file.append(B)
        monkeypatch.undo()
        assert B.key not in file
        file.append(C)
    assert read_answers(path) == [A, C]


def test_half_a_character_does_not_stop_the_file(path):
    written(path, Answer("CC", "cut \ud83d"))
    assert read_answers(path)[0].text == "cut ?"


def test_places_that_cannot_be_used_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "answers.jsonl", tmp_path):
        with pytest.raises(ConfigError, match="cannot be kept"):
            AnswerFile(place)
    with pytest.raises(DataError, match="cannot be read"):
        read_answers(tmp_path / "none.jsonl")
