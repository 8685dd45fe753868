"""Results on disk: what a kill, a power cut, other options and a second process do to them."""

import json

import pytest

from loquent.speech.corpus.journal import Journal
from loquent.speech.corpus.manifest import CorpusError

SETTINGS = {"work": "transcribe", "model": "tiny.en", "beam_size": 5}
RECORDS = [
    {"id": "a", "text": "Ägypten", "digest": "1"},
    {"id": "b", "error": "no such file", "digest": "2"},
    {"id": "c", "text": "wine", "digest": "3"},
]


def ids(folder):
    return [json.loads(line)["id"] for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_line_cut_anywhere_is_written_again(tmp_path):
    """Whatever part of the last record reached the disk, those before it stay, and it comes once."""
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(RECORDS)
    content = journal.path.read_bytes()
    begin = content.rindex(b'{"id":"c"')
    for cut in range(begin, len(content)):
        journal.path.write_bytes(content[:cut])
        with Journal(tmp_path, SETTINGS) as journal:
            assert [record["id"] for record in journal.records()] == ["a", "b"]
            journal.append(RECORDS)
        assert journal.path.read_bytes() == content


def test_zeros_of_a_power_cut_are_cut_off(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(RECORDS)
    content = journal.path.read_bytes()
    journal.path.write_bytes(content + bytes(100))
    with Journal(tmp_path, SETTINGS) as journal:
        assert len(journal) == 3
    assert journal.path.read_bytes() == content


def test_damage_in_the_middle_is_told(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(RECORDS)
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"error"', b'"err', 1))
    with pytest.raises(CorpusError, match="line 2 is damaged"):
        Journal(tmp_path, SETTINGS)


def test_other_options_are_refused_by_name(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(RECORDS)
    with pytest.raises(CorpusError, match="has results with beam_size 5, not 1"):
        Journal(tmp_path, SETTINGS | {"beam_size": 1})
    with pytest.raises(CorpusError, match='has results with language null, not "de"'):
        Journal(tmp_path, SETTINGS | {"language": "de"})


def test_a_folder_without_results_takes_any_options(tmp_path):
    with Journal(tmp_path, SETTINGS):
        pass
    with Journal(tmp_path, SETTINGS | {"beam_size": 1}) as journal:
        journal.append(RECORDS)
    assert json.loads((tmp_path / "settings.json").read_text())["beam_size"] == 1


def test_one_process_at_a_time(tmp_path):
    with Journal(tmp_path, SETTINGS), pytest.raises(CorpusError, match="another process"):
        Journal(tmp_path, SETTINGS)
    with Journal(tmp_path, SETTINGS) as journal:
        assert len(journal) == 0


def test_errors_come_again_if_asked(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append(RECORDS)
        assert journal.errors == 1
    with Journal(tmp_path, SETTINGS, retry=True) as journal:
        assert journal.errors == 0
        assert journal.digest("b") is None
        journal.append([{"id": "b", "text": "found", "digest": "2"}])
    assert ids(tmp_path) == ["a", "c", "b"]


def test_results_are_put_in_the_order_of_the_corpus(tmp_path):
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append([RECORDS[2], RECORDS[0]])
        journal.append([RECORDS[1]])
        journal.put_in_order(["a", "b", "not there", "c"])
        assert [record["id"] for record in journal.records()] == ["a", "b", "c"]
        journal.append([{"id": "d", "digest": "4"}])
    assert ids(tmp_path) == ["a", "b", "c", "d"]


def test_names_that_are_not_utf_8(tmp_path):
    name = b"caf\xe9.wav".decode("utf-8", "surrogateescape")
    with Journal(tmp_path, SETTINGS) as journal:
        journal.append([RECORDS[0], {"id": name, "digest": "9"}])
    with Journal(tmp_path, SETTINGS) as journal:
        assert [record["id"] for record in journal.records()] == ["a", name]
