"""Two processes of `loquent serve` behind HAProxy and nginx, as `examples/deploy` has them."""

import asyncio
import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

import httpx
import pytest

from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.net.client import ServerBusy, ServerShuttingDown, connect

DEPLOY = Path(str(resources.files("loquent.speech"))).resolve().parent / "examples" / "deploy"
SAMPLE = read_audio(Path(str(resources.files("loquent.speech") / "assets" / "sample.flac")))
SENTENCE = SAMPLE.samples[: round(4.2 * SAMPLE.sample_rate)]
TEXT = "streaming recognition writes each word down while you are still speaking."
REST, REST_TEXT = (
    SAMPLE.samples[round(4.2 * SAMPLE.sample_rate) : round(8.6 * SAMPLE.sample_rate)],
    "such machines in 1843.",
)
PROGRAM = "import sys; from loquent.speech.commands.cli import main; sys.exit(main())"
SESSIONS = 4  # at a time in a process
FLAGS = ["--model", "tiny.en", "--speak", "none", "--max-sessions", str(SESSIONS), "--connections-per-client", "none"]
FLAGS += ["--limit", "max_load=1e9", "--limit", "max_lag_s=1e9"]  # however busy this machine is


def until(condition, what):
    """Poll a condition that has to come true."""
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit, f"{what}: not within 120 s"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A process of `loquent serve` on a port of its own, which can be started again."""

    def __init__(self, sessions: Path) -> None:
        self.port, self.sessions = free_port(), sessions
        self.start()

    def start(self) -> None:
        own = ["--port", str(self.port), "--session-folder", str(self.sessions)]
        command = [sys.executable, "-c", PROGRAM, "serve", *own, *FLAGS]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    @property
    def active(self) -> int:
        """Streams that it has; -1 if it does not answer."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health").json()["models"]["tiny.en"]["active"]
        return -1

    def stop(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two that share the folder of their sessions."""
    sessions = tmp_path_factory.mktemp("sessions")
    both = [Process(sessions), Process(sessions)]
    try:
        for one in both:
            until(lambda one=one: one.active == 0, "the server starts")
        yield both
    finally:
        for one in both:
            one.process.kill()
            one.process.wait()


@pytest.fixture(autouse=True)
def _both_run(processes):
    """A process that a test has stopped is started again for the next one."""
    for one in processes:
        if one.process.poll() is not None:
            one.start()
            until(lambda one=one: one.active == 0, "the server starts")


@pytest.fixture(scope="module")
def folder():
    """A folder of a name short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="lb-") as path:
        yield Path(path)


def placed(name, port, processes):
    """A configuration of the examples, with other ports."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    text = re.sub(r"(bind :|listen )8000\b", rf"\g<1>{port}", text)
    for number, process in enumerate(processes, 8001):
        text = text.replace(f"server 127.0.0.1:{number} ", f"server 127.0.0.1:{process.port} ")
        text = re.sub(
            rf"(server \w+) 127\.0\.0\.1:{number}$", rf"\1 127.0.0.1:{process.port}", text, flags=re.MULTILINE
        )
    return text


@contextlib.contextmanager
def running(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until(lambda: process.poll() is not None or answers(port), "the balancer starts")
        assert process.poll() is None, f"{command[0]} ended with status {process.returncode}"
        yield port
    finally:
        process.terminate()
        process.wait(30)


def answers(port):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    return False


@pytest.fixture(scope="module")
def haproxy(processes, folder):
    """The port of HAProxy, whose checks are ten times as frequent as in the example."""
    program = shutil.which("haproxy", path="/usr/local/sbin:/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("there is no HAProxy: apt-get install haproxy")
    port = free_port()
    text = placed("haproxy.cfg", port, processes)
    text = text.replace("/run/haproxy.sock", str(folder / "admin")).replace("inter 2s", "inter 200ms")
    (folder / "haproxy.cfg").write_text(text)
    subprocess.run([program, "-c", "-q", "-f", folder / "haproxy.cfg"], check=True)
    with running([program, "-db", "-f", folder / "haproxy.cfg"], port):
        yield port


@pytest.fixture(scope="module")
def nginx(processes, folder):
    """The port of nginx."""
    program = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("there is no nginx: apt-get install nginx-light")
    port = free_port()
    (folder / "speech.conf").write_text(placed("nginx.conf", port, processes))
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder / 'nginx.pid'}; error_log {folder / 'error.log'}; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder / 'speech.conf'}; }}\n"
    )
    with running([program, "-e", folder / "error.log", "-c", folder / "nginx.conf"], port):
        yield port


@pytest.fixture(params=["haproxy", "nginx"])
def balancer(request):
    return request.getfixturevalue(request.param)


def haproxy_says(folder, command):
    """The answer of HAProxy's administration."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / "admin"))
        client.sendall(command.encode() + b"\n")
        return b"".join(iter(lambda: client.recv(4096), b"")).decode()


def states(folder, name):
    """What HAProxy takes a process for, for streams and for everything else: UP, DOWN, DRAIN …"""
    rows = [line.split(",") for line in haproxy_says(folder, "show stat").splitlines() if line]
    known = {tuple(row[:2]): row[rows[0].index("status")].split()[0] for row in rows}
    return [known[backend, name] for backend in ("streams", "processes")]


def until_states(folder, name, *wanted):
    until(lambda: states(folder, name) == list(wanted), f"HAProxy takes {name} for {wanted}")


def all_up(folder):
    """Wait until HAProxy uses both processes."""
    for name in ("one", "two"):
        until_states(folder, name, "UP", "UP")


def set_state(folder, name, wanted):
    haproxy_says(folder, f"set server streams/{name} state {wanted}; set server processes/{name} state {wanted}")


def busy(processes) -> int:
    """The one that has the stream."""
    (at,) = (number for number, process in enumerate(processes) if process.active)
    return at


def transcribed(port) -> str:
    """A sentence over a websocket."""

    async def talk():
        async with connect(f"ws://127.0.0.1:{port}", sample_rate=SAMPLE.sample_rate) as stream:
            await stream.send(SENTENCE)
            return said(await stream.finish())

    return asyncio.run(talk())


def said(events) -> str:
    return " ".join(event.text.strip() for event in events if event.type == "final").lower()


def test_streams_are_spread_and_stay_where_they_are(processes, balancer):
    """Two streams at a time are on two processes, and each hears the whole sentence."""

    async def talk():
        url = f"ws://127.0.0.1:{balancer}"
        async with (
            connect(url, sample_rate=SAMPLE.sample_rate) as one,
            connect(url, sample_rate=SAMPLE.sample_rate) as other,
        ):
            assert [process.active for process in processes] == [1, 1]
            for at in range(0, len(SENTENCE), SAMPLE.sample_rate):
                await one.send(SENTENCE[at : at + SAMPLE.sample_rate])
                await other.send(SENTENCE[at : at + SAMPLE.sample_rate])
            return [said(await stream.finish()) for stream in (one, other)]

    assert asyncio.run(talk()) == [TEXT, TEXT]


def test_uploads_go_through(balancer, tmp_path):
    write_audio(tmp_path / "talk.wav", SENTENCE, SAMPLE.sample_rate)
    for streamed in (False, True):
        answer = httpx.post(
            f"http://127.0.0.1:{balancer}/v1/audio/transcriptions",
            files={"file": (tmp_path / "talk.wav").read_bytes()},
            data={"model": "tiny.en", "stream": str(streamed).lower()},
            timeout=120,
        )
        assert answer.status_code == 200
        assert TEXT in answer.text.lower()


def test_draining_a_process_loses_nothing(processes, haproxy, folder):
    """While a stream goes on there, new ones go elsewhere; when it has ended, the process can be replaced."""

    async def talk():
        async with connect(f"ws://127.0.0.1:{haproxy}", sample_rate=SAMPLE.sample_rate) as stream:
            at = busy(processes)
            name = ("one", "two")[at]
            await stream.send(SENTENCE[: SAMPLE.sample_rate * 2])
            set_state(folder, name, "drain")
            assert await asyncio.to_thread(transcribed, haproxy) == TEXT
            assert [process.active for process in processes] == [at == 0, at == 1]
            await stream.send(SENTENCE[SAMPLE.sample_rate * 2 :])
            assert said(await stream.finish()) == TEXT
        return at, name

    all_up(folder)
    at, name = asyncio.run(talk())
    until(lambda: processes[at].active == 0, "the stream is over")
    set_state(folder, name, "ready")
    until_states(folder, name, "UP", "UP")


def test_a_process_that_is_told_to_stop_gives_the_last_words_and_others_go_on(processes, haproxy, folder):
    """Without draining: the stream is told how much was heard, and the rest is sent to the other process."""

    async def talk():
        url, at = f"ws://127.0.0.1:{haproxy}", -1
        events = []
        async with connect(url, sample_rate=SAMPLE.sample_rate) as stream:
            at = busy(processes)
            await stream.send(SENTENCE)
            stopping, told = None, ""
            try:
                async for event in stream:
                    events.append(event)
                    if stopping is None:  # the sentence, which is one message, is being heard
                        stopping = asyncio.create_task(asyncio.to_thread(processes[at].stop, signal.SIGTERM))
            except ServerShuttingDown as error:
                told = str(error)
            assert "has heard 4.200 s" in told
            assert await stopping == 0
        async with connect(url, sample_rate=SAMPLE.sample_rate) as stream:
            await stream.send(REST)
            return at, said(events), said(await stream.finish())

    all_up(folder)
    at, first, rest = asyncio.run(talk())
    assert first == TEXT
    assert REST_TEXT in rest
    until_states(folder, ("one", "two")[at], "DOWN", "DOWN")


@pytest.mark.parametrize(
    ("balancer", "how"),
    [("haproxy", signal.SIGTERM), ("haproxy", signal.SIGKILL), ("nginx", signal.SIGKILL)],
    indirect=["balancer"],
)
def test_a_stream_moves_to_the_other_process_in_the_middle_of_a_sentence(processes, balancer, how):
    """It says what it would have said, word for word: nothing is lost, and nothing comes twice."""
    talk, second = SAMPLE.samples[: round(8.6 * SAMPLE.sample_rate)], SAMPLE.sample_rate

    async def undisturbed():
        url = f"ws://127.0.0.1:{processes[0].port}"
        async with connect(url, sample_rate=SAMPLE.sample_rate) as stream:
            await stream.send(talk)
            return await stream.finish()

    async def moved():
        events = []
        url = f"ws://127.0.0.1:{balancer}"
        async with connect(url, sample_rate=SAMPLE.sample_rate, resumable=True) as stream:
            at = busy(processes)
            await stream.send(talk[: 6 * second])  # enough to be saved,
            await word(stream, "Ada", events)
            await stream.send(talk[6 * second : 8 * second])  # and some that is not
            await word(stream, "such", events)
            assert await asyncio.to_thread(processes[at].stop, how) == (0 if how is signal.SIGTERM else -how)
            await stream.send(talk[8 * second :])
            events += await stream.finish()
            assert stream.resumed == 1
            assert [process.process.poll() is None for process in processes] == [at == 1, at == 0]
        return events

    expected, events = asyncio.run(undisturbed()), asyncio.run(moved())
    assert said(expected).startswith(TEXT)
    assert said(expected).endswith(REST_TEXT)
    assert [event.to_dict() | {"stream": ""} for event in events] == [
        event.to_dict() | {"stream": ""} for event in expected
    ]


async def word(stream, text, events):
    """Take events up to a word."""
    async for event in stream:
        events.append(event)
        if event.type == "word" and event.text.strip() == text:
            return
    raise AssertionError(f"the stream ended before {text!r}")


def test_streams_go_where_there_is_room(processes, haproxy, folder):
    """Also if HAProxy has sent nothing there itself; where there is none, streams are refused, and files are not."""

    async def talk():
        async with contextlib.AsyncExitStack() as streams:

            async def open_some(port, count):
                for _ in range(count):
                    await streams.enter_async_context(connect(f"ws://127.0.0.1:{port}"))

            await open_some(processes[0].port, SESSIONS)
            await asyncio.to_thread(until_states, folder, "one", "DOWN", "UP")
            await open_some(haproxy, 2)
            assert [process.active for process in processes] == [SESSIONS, 2]
            await open_some(processes[1].port, SESSIONS - 2)
            await asyncio.to_thread(until_states, folder, "two", "DOWN", "UP")
            with pytest.raises(ServerBusy):
                await open_some(haproxy, 1)
            assert httpx.get(f"http://127.0.0.1:{haproxy}/v1/models").status_code == 200

    all_up(folder)
    asyncio.run(talk())
    all_up(folder)


def test_a_dead_process_is_not_asked(processes, haproxy, nginx, folder):
    """It is killed: no request is lost from then on, and HAProxy's check takes it out."""
    all_up(folder)
    assert processes[0].stop(signal.SIGKILL) == -signal.SIGKILL
    for port in (haproxy, nginx):
        assert [httpx.get(f"http://127.0.0.1:{port}/health").status_code for _ in range(6)] == [200] * 6
        assert transcribed(port) == TEXT
    until_states(folder, "one", "DOWN", "DOWN")
    assert states(folder, "two") == ["UP", "UP"]
