"""What is kept of streams that wait: as values, as bytes that may be anything, as files that processes share."""

import asyncio
import dataclasses
import os
import time

import numpy as np
import pytest

from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import Output, Start
from loquent.speech.net.sessions.folder import Moved, SessionFolder
from loquent.speech.net.sessions.log import EventLog
from loquent.speech.net.sessions.record import Record
from loquent.speech.net.sessions.sessions import Sessions
from loquent.speech.net.sessions.unsaved import Unsaved
from loquent.speech.runtime.events import Partial, Speech, Word


def word(sequence, stage="", text="a"):
    return Word(stage=stage, sequence=sequence, text=text, start=0.0, end=1.0, confidence=0.5)


def speech(sequence, start, end):
    samples = np.linspace(-1, 1, 16, dtype=np.float32)
    return Speech(sequence=sequence, samples=samples, sample_rate=8000, text="a", span=(0, 1), start=start, end=end)


RECORD = Record(
    key="ann",
    model="m",
    start=Start(sample_rate=8000, options={"phrases": ["x"]}, output=Output("float32"), resumable=True),
    ready={"type": "ready", "stream": "s"},
    position=17,
    messages=2,
    finished=False,
    snapshot=b"anything",
    events=(word(3), speech(4, 0.5, 1.0), word(0, "hear")),
    received={"": 3},
    spoken_s=0.5,
)


@pytest.mark.parametrize("record", [RECORD, dataclasses.replace(RECORD, snapshot=None, events=())])
def test_a_record_is_bytes_and_back(record):
    assert Record.from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize("seed", range(40))
def test_bytes_that_are_none_are_refused(seed):
    data, rng = bytearray(RECORD.to_bytes()), np.random.default_rng(seed)
    if seed < 10:
        data = data[: rng.integers(0, len(data) - len(RECORD.snapshot))]
    else:  # but for the snapshot, which has a checksum of its own
        data[rng.integers(0, len(data) - len(RECORD.snapshot))] ^= 1 << rng.integers(0, 8)
    with pytest.raises(ValueError, match="snapshot"):
        Record.from_bytes(bytes(data))


@pytest.mark.parametrize(
    "change",
    [{"position": -1}, {"events": [{"type": "word", "sequence": "x"}]}, {"start": {"type": "finish"}}, {"key": 1}],
)
def test_values_that_do_not_fit_are_refused(monkeypatch, change):
    from loquent.speech.net.sessions import record as module

    dumps = module.json.dumps
    with monkeypatch.context() as patch:
        patch.setattr(module.json, "dumps", lambda values: dumps(values | change))
        data = RECORD.to_bytes()
    with pytest.raises(ValueError, match=r"saved|session"):
        Record.from_bytes(data)


def test_a_log_knows_what_its_client_has():
    log = EventLog()
    assert len(log.add([word(0), word(1), word(0, "hear")])) == 3
    log.acknowledge({f"elsewhere {number}": 7 for number in range(1000)})
    assert len(log.received) == 16
    log = EventLog([word(0), word(1), word(0, "hear")])
    log.acknowledge({"": 1, "hear": 0, "elsewhere": 7})
    assert log.events == [word(1), word(0, "hear")]
    log.acknowledge({"": 0})  # less than before
    assert log.add([word(0), word(1), word(2)]) == [word(1), word(2)]
    log = EventLog([speech(0, 0.0, 0.5), speech(1, 0.5, 1.0), speech(2, 1.0, 1.5)])
    log.acknowledge({"": 1})
    assert log.spoken_s == 0.5
    log.drop_speech(1.0)
    assert [event.sequence for event in log.events] == [1]
    before = log.nbytes
    log.add([Partial(sequence=at, stable="s", unstable="u" * 1000) for at in range(3, 9)])
    log.drop_superseded()
    assert [event.sequence for event in log.events] == [1, 8]
    assert log.nbytes < before + 2000


def test_a_log_of_channels_takes_no_event_for_one_of_another_channel():
    log = EventLog()
    channels = [
        Partial(stream=f"channels-1/{at}", stage=stage, sequence=0, stable="s", unstable="")
        for at, stage in ((0, "hear"), (0, "translation"), (1, "hear"))
    ]
    log.add(channels)
    log.drop_superseded()
    log.acknowledge({"0/hear": 5})
    assert log.events == channels[1:]
    assert log.add(channels) == channels[1:]


def test_a_client_knows_what_is_not_saved():
    unsaved = Unsaved()
    for message, units in ((b"aa", 10), ("marker", 0), (b"bb", 10), ("finish", 0)):
        unsaved.add(message, units)
    unsaved.saved(10, 0)
    assert unsaved.messages() == ["marker", b"bb", "finish"]
    unsaved.saved(20, 1)
    assert unsaved.messages() == ["finish"]
    unsaved.saved(20, 2)
    assert unsaved.messages() == []
    assert unsaved.nbytes == 0


@pytest.fixture
def folder(tmp_path):
    return SessionFolder(tmp_path / "kept", keep_s=100.0, most=3, most_bytes=1000)


def test_whoever_takes_a_session_over_is_the_only_one_to_write_it(folder):
    digest = "0" * 64
    folder.write(digest, 0, b"first", first=True)
    folder.write(digest, 0, b"second", first=False)
    assert folder.claim(digest) == (b"second", 1)
    with pytest.raises(Moved):
        folder.write(digest, 0, b"late", first=False)
    folder.write(digest, 1, b"third", first=False)
    assert folder.claim(digest) == (b"third", 2)
    assert folder.claim("1" * 64) is None
    folder.remove(digest, 1)  # not ours any more
    assert folder.claim(digest) == (b"third", 3)
    assert not list(folder.path.glob("*.tmp"))


def test_files_are_for_this_user_alone_and_bounded(folder):
    for number in range(5):
        folder.write(str(number) * 64, 0, b"x" * 10, first=True)
        at = time.time() - 50 + number
        os.utime(folder.path / f"{str(number) * 64}-0.session", (at, at))
    assert {file.stat().st_mode & 0o777 for file in folder.path.iterdir()} == {0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.sweep([("0" * 64, 0)])
    assert sorted(file.name[0] for file in folder.path.glob("*.session")) == ["0", "3", "4"]
    old = folder.path / f"{'3' * 64}-0.session"
    os.utime(old, (1.0, 1.0))
    assert folder.claim("3" * 64) is None
    folder.sweep([])
    assert not old.exists()
    folder.write("4" * 64, 0, b"x" * 2000, first=True)
    folder.sweep([])
    assert not list(folder.path.glob("4*"))


class Nobody:
    async def give_up(self):
        raise AssertionError("it is under way nowhere")


def test_sessions_in_memory_are_bounded_in_time_and_bytes():
    now = [0.0]
    limits = Limits(session_keep_s=10.0, max_kept_bytes=20_000)

    async def main():
        sessions = Sessions(limits, clock=lambda: now[0])
        tokens = []
        for _ in range(3):
            token, claim = sessions.open("ann", Nobody())
            tokens.append(token)
            await sessions.wait(claim, lambda: dataclasses.replace(RECORD, snapshot=b"x" * 4000))
        assert sessions.waiting == 2
        assert await sessions.resume(tokens[0], "ann", Nobody()) is None
        assert await sessions.resume(tokens[1], "ben", Nobody()) is None
        found = await sessions.resume(tokens[1], "ann", Nobody())
        assert found is not None
        assert found[1].generation == 1
        now[0] = 11.0
        await sessions.sweep()
        assert sessions.waiting == 0

    asyncio.run(main())
