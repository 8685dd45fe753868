"""Who is let in, and who has to go when the machine turns out to be too slow for all."""

import asyncio
import dataclasses
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from loquent.speech.audio.resample import LARGEST_TABLE, Resampler
from loquent.speech.audio.resamplers import Resamplers, TooManyTables
from loquent.speech.net.admission import Relief
from loquent.speech.net.connections.arrivals import Arrivals
from loquent.speech.net.limits import Limits
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.scheduler import Scheduler


def taps(rate):
    try:
        return Resampler.table_taps(rate, 16_000)
    except ValueError:
        return 0


ODD = [rate for rate in range(170_000, 192_000, 16) if taps(rate) > 800_000][:12]


def start(server, **values):
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream", compression=None) as websocket:
        websocket.send(json.dumps({"type": "start"} | values))
        return json.loads(websocket.recv(timeout=30))


def refusals(server, reason):
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    return sum(map(float, re.findall(rf'^loquent_refusals_total{{.*reason="{reason}".*}} (.*)$', text, re.MULTILINE)))


def test_a_full_server_makes_no_tables(start_server, band_energy):
    engine = Engine(band_energy.BandEnergy(), 1)
    server = start_server(engines={"band": engine})
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as first:
        first.send('{"type": "start"}')
        first.recv()
        made = engine.resamplers.made
        for rate in ODD:
            answer = start(server, sample_rate=rate)
            assert (answer["type"], answer["code"]) == ("failure", "busy")
        assert engine.resamplers.made == made
        assert refusals(server, "slots") == len(ODD)


def test_unusual_rates_are_made_once_each_one_at_a_time_and_in_bounded_memory(start_server, band_energy, monkeypatch):
    engine = Engine(band_energy.BandEnergy(), 32)
    engine.resamplers = Resamplers(most_bytes=6 * 4 * LARGEST_TABLE)
    server = start_server(engines={"band": engine})
    making, most = [0], [0]
    made = Resampler.__init__

    def counted(self, *rates):
        making[0] += 1
        most[0] = max(most[0], making[0])
        made(self, *rates)
        making[0] -= 1

    monkeypatch.setattr(Resampler, "__init__", counted)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda rate: start(server, sample_rate=rate), ODD * 2))
        assert httpx.get(f"http://127.0.0.1:{server.port}/health").status_code == 200
    assert {answer["type"] for answer in answers} <= {"ready", "failure"}
    assert sum(answer["type"] == "ready" for answer in answers) >= 6
    assert most[0] == 1
    assert engine.resamplers.nbytes <= engine.resamplers.most_bytes


def test_tables_in_use_are_not_dropped_and_not_made_twice():
    size = 4 * Resampler.table_taps(44_100, 16_000)
    tables = Resamplers(most_bytes=2 * size)
    first = tables.get(44_100, 16_000)
    with ThreadPoolExecutor(8) as pool:
        assert all(one is first for one in pool.map(lambda _: tables.get(44_100, 16_000), range(50)))
    assert tables.made == 1
    with pytest.raises(TooManyTables, match="resample to a customary rate such as 48000"):
        tables.get(192_000, 44_100)
    small = tables.get(48_000, 16_000)
    assert tables.get(44_100, 16_000) is first
    assert tables.get(48_000, 16_000) is small
    with pytest.raises(ValueError, match=r"needs .* filter taps"):
        tables.get(44_101, 16_000)


def test_input_is_late_by_the_clock_of_its_source():
    inbox, arrivals = SampleInbox(16_000, 1, 16_000), Arrivals()
    for second in range(5):  # in real time
        arrivals.add(16_000 * (second + 1), 1.0, 100.0 + second)
    assert arrivals.lag(16_000, 104.0) == 3.0
    assert arrivals.lag(80_000, 104.0) == 0.0
    assert arrivals.lag(80_001, 200.0) == 0.0  # has not come
    at_once = Arrivals()
    for second in range(60):
        at_once.add(16_000 * (second + 1), 1.0, 100.0)
    assert at_once.lag(16_000 * 30, 110.0) == 0.0  # faster than real time is not late
    assert len(at_once) == 1
    flood = Arrivals()
    for number in range(100_000):
        flood.add(number + 1, 1 / 16_000, 100.0 + number / 100_000)
    assert len(flood) <= 50
    inbox.push(np.zeros(16_000 * 60, np.int16))
    assert arrivals.processed(inbox) == 100.0


class Connection:
    """As much of a connection as relief looks at, with a lag of ours."""

    def __init__(self, opened, stream):
        self.opened, self.stream, self.lag_s, self.verdict = opened, stream, 0.0, None

    @property
    def going_on(self):
        return self.verdict is None

    def lag(self, now):
        return self.lag_s

    def conclude(self, code, message):
        self.verdict = (code, message)


def test_the_newest_go_until_the_others_fit(band_energy):
    engine = Engine(band_energy.BandEnergy(), 16)
    scheduler = Scheduler([engine])
    relief = Relief(scheduler, Limits(max_lag_s=4.0))
    connections = [Connection(float(number), engine.open()) for number in range(10)]
    for _ in range(3):
        engine.pace.observe(10, 0.2, 1.0)  # twice what the machine can do
        engine.pace.observe(5, 0.1, 0.5)
    assert relief.look(connections, 0.0) == 0
    connections[7].lag_s = 0.7
    assert relief.look(connections, 0.0) == 0
    connections[7].lag_s = 4.5
    assert relief.look(connections[::-1], 1.0) == 6
    assert [one.opened for one in connections if one.going_on] == [0.0, 1.0, 2.0, 3.0]
    code, message = connections[9].verdict
    assert code == "overloaded"
    assert "4.5 s behind, and its streams need more time than there is" in message
    connections[0].lag_s = 4.6
    assert relief.look(connections, 2.0) == 0  # the others are on their way out
    assert relief.look(connections, 6.0) == 0  # it gets no worse
    connections[0].lag_s = 9.0
    assert relief.look(connections, 7.0) == 1
    for one in connections[:3]:
        one.lag_s = 50.0
    assert [relief.look(connections, 20.0 * number) for number in (1, 2, 3, 4)] == [1, 0, 0, 0]
    connections[0].lag_s = connections[1].lag_s = 100.0
    assert relief.look(connections, 200.0) == 1
    connections[0].lag_s = 500.0
    assert relief.look(connections, 300.0) == 0  # the oldest always stays
    scheduler.shut_down()


def test_a_stream_that_does_not_fit_is_refused_and_says_why(start_server, band_energy):
    engine = Engine(band_energy.BandEnergy(), 16)
    server = start_server(engines={"band": engine}, measured=True)
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as first:
        first.send('{"type": "start"}')
        first.recv()
        for _ in range(64):
            engine.pace.observe(1, 0.7, 1.0)
            engine.pace.observe(2, 1.4, 2.0)
        answer = start(server)
        assert (answer["type"], answer["code"]) == ("failure", "busy")
        assert "140% of this machine's time; streams may have 80%" in answer["message"]
        text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
        assert "loquent_load 0.7" in text
        assert 'loquent_capacity_streams{model="band"} 1.0' in text
        assert 'loquent_refusals_total{model="band",reason="load",task="recognition"} 1.0' in text


def test_those_that_came_last_end_with_what_they_have_said(start_server, band_energy):
    """A machine that gets too slow for two streams that were let in: the first one goes on."""
    task = band_energy.BandEnergy()
    server = start_server(task, measured=True, limits=Limits(max_lag_s=0.3))
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    with connect(url, compression=None) as first, connect(url, compression=None) as second:
        for websocket in (first, second):
            websocket.send('{"type": "start"}')
            assert json.loads(websocket.recv())["type"] == "ready"
        stopping = threading.Event()

        def play():
            while not stopping.is_set():
                for websocket in (first, second):
                    try:
                        websocket.send(bytes(3200))
                    except Exception:
                        return
                time.sleep(0.1)

        slow = band_energy.BandEnergy.launch

        def crawl(*args):
            time.sleep(0.25)
            return slow(task, *args)

        task.launch = crawl
        player = threading.Thread(target=play)
        player.start()
        try:
            messages = []
            while not messages or messages[-1]["type"] != "failure":
                messages.append(json.loads(second.recv(timeout=30)))
        finally:
            stopping.set()
            player.join()
        assert messages[-1]["code"] == "overloaded"
        assert "this stream came last" in messages[-1]["message"]
        assert any(message["type"] == "word" for message in messages)
        task.launch = lambda *args: slow(task, *args)
        first.send('{"type": "finish"}')
        last = None
        while last != "done":
            last = json.loads(first.recv(timeout=30))["type"]


def test_nothing_is_computed_on_the_event_loop_for_an_unusual_rate(band_energy):
    from loquent.speech.net.admission import Admission
    from loquent.speech.net.metrics import Metrics
    from loquent.speech.net.models import models_of

    engine = Engine(band_energy.BandEnergy(), 1)
    scheduler, threads = Scheduler([engine]), []
    admission = Admission(scheduler, Limits(), Metrics())
    get = engine.resamplers.get
    engine.resamplers.get = lambda *rates: (threads.append(threading.current_thread().name), get(*rates))[1]
    (model,) = models_of(engine).values()
    asyncio.run(admission.open(model, sample_rate=ODD[0], options={}))
    assert threads[0].startswith("loquent-tables")
    admission.shut_down()
    scheduler.shut_down()


def test_ready_tells_what_a_stream_was_given_instead_of_what_it_asked_for(start_server, band_energy):
    class Relaxing(band_energy.BandEnergy):
        def relaxed(self, options):
            return [dataclasses.replace(options, chunk_ms=500)] if options.chunk_ms < 500 else []

    engine = Engine(Relaxing(), 16)
    server = start_server(engines={"band": engine}, measured=True)
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as first:
        first.send('{"type": "start"}')
        assert "relaxed" not in json.loads(first.recv())
        for _ in range(64):
            engine.pace.observe(1, 0.4, 1.0)
            engine.pace.observe(2, 0.8, 2.0)
        assert start(server)["relaxed"] == {"chunk_ms": 500}
        assert "relaxed" not in start(server, options={"chunk_ms": 500})
