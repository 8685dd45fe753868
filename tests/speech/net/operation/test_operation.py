"""Logs, readiness and TLS of a server."""

import asyncio
import json
import logging
import ssl
import subprocess
import sys

import httpx
import pytest

from loquent.speech.net.client import connect
from loquent.speech.net.operation.logs import logging_config
from loquent.speech.net.server import Server, create_app
from loquent.speech.runtime.engine import Engine


def url(server, path):
    return f"http://127.0.0.1:{server.port}{path}"


def said(server, samples=16_000):
    async def main():
        async with connect(f"ws://127.0.0.1:{server.port}") as stream:
            await stream.send(bytes(2 * samples))
            return await stream.finish()

    return asyncio.run(main())


def test_a_stream_is_one_line_without_what_was_said(start_server, caplog):
    server = start_server()
    with caplog.at_level(logging.INFO, logger="loquent"):
        events = said(server)
        while server.service.connections:
            pass
    (record,) = (record for record in caplog.records if record.message == "stream over")
    fields = record.fields
    assert {name: fields[name] for name in ("key", "model", "task", "audio_s", "ended", "resumed")} == {
        "key": "",
        "model": "band",
        "task": "recognition",
        "audio_s": 1.0,
        "ended": "done",
        "resumed": False,
    }
    assert fields["stream"] == events[0].stream
    assert 0 < fields["worst_lag_s"] <= fields["seconds"]
    assert "0/0/0" not in caplog.text


@pytest.mark.parametrize("format", ["json", "text"])
def test_lines(format):
    program = (
        "import logging, logging.config\n"
        f"logging.config.dictConfig({logging_config(format, 'info')!r})\n"
        "log = logging.getLogger('loquent.streams')\n"
        "log.info('stream over', extra={'fields': {'key': 'ann', 'seconds': 1.5}})\n"
        "log.debug('unseen')\n"
        "try:\n    1 / 0\n"
        "except ZeroDivisionError:\n    log.exception('two\\nlines')\n"
    )
    lines = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stderr.splitlines()
    if format == "text":
        assert lines[0].endswith("INFO loquent.streams: stream over key=ann seconds=1.5")
        return
    first, second = map(json.loads, lines)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "loquent.streams",
        "message": "stream over",
        "key": "ann",
        "seconds": 1.5,
    }
    assert second["message"] == "two\nlines"
    assert "ZeroDivisionError" in second["error"]


def test_a_full_server_is_alive_and_not_ready(start_server):
    server = start_server(capacity=1)
    assert httpx.get(url(server, "/ready")).json() == {"status": "ok", "models": {"band": True}}

    async def main():
        async with connect(f"ws://127.0.0.1:{server.port}"):
            return [await asyncio.to_thread(httpx.get, url(server, path)) for path in ("/ready", "/health")]

    ready, health = asyncio.run(main())
    assert (ready.status_code, ready.json()["status"]) == (503, "full")
    assert health.status_code == 200
    server.service.draining = True
    assert httpx.get(url(server, "/ready")).json()["status"] == "draining"


def test_streams_and_refusals_are_counted_by_task_and_model(start_server):
    server = start_server()
    said(server)
    text = httpx.get(url(server, "/metrics")).text
    assert 'loquent_streams{model="band",task="recognition"} 0.0' in text
    assert 'loquent_lag_seconds_count{model="band",task="recognition"} 11.0' in text


def test_tls(band_energy, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = [*made.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    app = create_app({"band": Engine(band_energy.BandEnergy(), 2)})
    server = Server(app, port=0, log_level="warning", tls=(str(certificate), str(key)))

    async def main():
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        trusted = ssl.create_default_context(cafile=certificate)
        async with httpx.AsyncClient(verify=trusted) as client:
            answer = await client.get(f"https://127.0.0.1:{server.port}/ready")
        server.should_exit = True
        await serving
        return answer.status_code

    assert asyncio.run(main()) == 200
