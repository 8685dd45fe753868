"""A played file gives every sample, in packets of the asked length, at the asked pace; a microphone never crashes."""

import asyncio
import contextlib
import selectors
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from loquent.speech.audio import sources
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import write_audio
from loquent.speech.audio.sources import Mailbox, MicrophoneError, file_source, list_microphones, microphone_source


class InstantSelector(selectors.DefaultSelector):
    """Instead of waiting, moves the clock on: a loop with it plays an hour at once, in order."""

    now = 0.0

    def select(self, timeout=None):
        if timeout:
            self.now += timeout
        return super().select(0 if timeout is not None else None)


def play(coroutine_of_clock):
    """Run a coroutine on a loop whose clock is virtual."""
    selector = InstantSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    with contextlib.closing(loop):
        return loop.run_until_complete(coroutine_of_clock(loop))


def pcm(seconds: float, rate: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-32768, 32768, (round(seconds * rate), channels), dtype=np.int16)


async def collect(source) -> list[np.ndarray]:
    return [packet async for packet in source]


@pytest.mark.parametrize("ending", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("packet_ms", [10, 33.3, 100, 5000])
def test_every_sample_comes_out_as_it_was(tmp_path, ending, channels, packet_ms):
    samples = pcm(1.05, 22050, channels)
    write_audio(tmp_path / f"a{ending}", samples, 22050)
    source = file_source(tmp_path / f"a{ending}", packet_ms)
    assert (source.sample_rate, source.channels) == (22050, channels)
    packets = asyncio.run(collect(source))
    assert all(packet.dtype == np.int16 for packet in packets)
    assert {len(packet) for packet in packets[:-1]} <= {round(22.05 * packet_ms)}
    np.testing.assert_array_equal(np.concatenate(packets), samples)


@pytest.mark.parametrize("listening_s", [0.0, 0.04, 0.3])
def test_realtime_follows_the_clock_and_does_not_drift(tmp_path, listening_s):
    write_audio(tmp_path / "a.wav", pcm(1.05, 16000, 1), 16000)

    async def listen(loop):
        arrivals = []
        async for packet in file_source(tmp_path / "a.wav", 100, realtime=True):
            arrivals.append((loop.time(), len(packet)))
            await asyncio.sleep(listening_s)
        return arrivals

    arrivals = play(listen)
    recorded = np.cumsum([length for _, length in arrivals]) / 16000
    expected = []
    for at in recorded:  # when it was recorded, or when the listener came back if that is later
        expected.append(max(at, expected[-1] + listening_s if expected else 0))
    np.testing.assert_allclose([at for at, _ in arrivals], expected, atol=1e-6)
    assert recorded[-1] == pytest.approx(1.05)


def test_without_realtime_no_time_passes(tmp_path):
    write_audio(tmp_path / "a.wav", pcm(3, 16000, 1), 16000)

    async def listen(loop):
        await collect(file_source(tmp_path / "a.wav"))
        return loop.time()

    assert play(listen) == 0


def test_other_tasks_run_between_packets(tmp_path):
    write_audio(tmp_path / "a.wav", pcm(1, 16000, 1), 16000)
    order = []

    async def listen(name):
        async for packet in file_source(tmp_path / "a.wav", 500):
            order.append((name, len(packet)))  # noqa: PERF401 (in order of time)

    async def both():
        await asyncio.gather(listen("a"), listen("b"))

    asyncio.run(both())
    assert [name for name, _ in order] == ["a", "b", "a", "b"]


def test_files_that_cannot_be_played(tmp_path):
    with pytest.raises(AudioError, match="no such audio file"):
        file_source(tmp_path / "nothing.wav")
    with pytest.raises(ValueError, match="packet_ms=0"):
        file_source(tmp_path / "nothing.wav", packet_ms=0)
    write_audio(tmp_path / "a.flac", pcm(3, 16000, 1), 16000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    source = file_source(tmp_path / "a.flac")
    assert 0 < sum(map(len, asyncio.run(collect(source)))) < 3 * 16000
    assert "damaged or cut short" in source.warnings[-1]


def test_mailbox_keeps_order_across_threads():
    async def main():
        mailbox, loop = Mailbox(1000), asyncio.get_running_loop()

        def record():
            for n in range(500):
                loop.call_soon_threadsafe(mailbox.put, np.array([n]), False)

        thread = threading.Thread(target=record)
        thread.start()
        got = [int((await mailbox.get())[0]) for _ in range(500)]
        thread.join()
        return got

    assert asyncio.run(main()) == list(range(500))


def test_a_slow_listener_loses_the_oldest_and_is_told(capsys):
    async def main():
        mailbox = Mailbox(3)
        for n in range(5):
            mailbox.put(np.array([n]), overflowed=n == 1)
        return [int((await mailbox.get())[0]) for _ in range(3)]

    assert asyncio.run(main()) == [2, 3, 4]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 packets dropped, the listener is too slow" in captured.err
    assert "samples lost, the computer is too busy (1 times)" in captured.err
    assert len(captured.err.splitlines()) == 2


def test_an_unplugged_microphone_ends_after_its_last_packet():
    async def main():
        mailbox = Mailbox(3)
        mailbox.put(np.array([7]), overflowed=False)
        mailbox.close()
        assert (await mailbox.get())[0] == 7
        with pytest.raises(MicrophoneError, match="still plugged in"):
            await mailbox.get()
        waiting = asyncio.create_task(Mailbox.get(other := Mailbox(3)))
        await asyncio.sleep(0)
        other.close()
        with pytest.raises(MicrophoneError):
            await waiting

    asyncio.run(main())


def test_without_portaudio_the_error_says_how_to_install_it():
    # A library search that finds nothing is what a machine without PortAudio has; the package itself is the real one.
    code = textwrap.dedent("""
        import ctypes.util, sys
        ctypes.util.find_library = lambda name: None
        from loquent.speech.audio.sources import MicrophoneError, list_microphones, microphone_source
        for ask in (list_microphones, microphone_source):
            try:
                ask()
            except MicrophoneError as error:
                print(error)
    """)
    if sys.platform != "linux":
        pytest.skip("on other systems sounddevice carries PortAudio")
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.count("PortAudio library not found. Install PortAudio") == 2
    assert "libportaudio2" in got.stdout


def test_microphones_are_listed_where_there_is_portaudio():
    try:
        import sounddevice  # noqa: F401
    except OSError:
        pytest.skip("PortAudio is not installed")
    assert all(found.channels > 0 and found.sample_rate > 0 for found in list_microphones())
    with pytest.raises(MicrophoneError, match="no microphone 'no such device'"):
        microphone_source("no such device")


def test_importing_the_sources_needs_no_portaudio():
    code = "import sys, loquent.speech.audio.sources; print('sounddevice' in sys.modules, 'av' in sys.modules)"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.split() == ["False", "False"]
    assert sources.MAILBOX_S >= 10
