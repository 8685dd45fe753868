"""Send a recording to a server and print every word as it is committed.

    LOQUENT_API_KEY=secret python examples/websocket_client.py ws://127.0.0.1:8000 speech/assets/sample.flac

Any server of loquent will do: `loquent serve`, or `examples/serve_app.py`.
"""

import asyncio
import os
import sys

from loquent.speech.audio.sources import AudioSource, file_source
from loquent.speech.net.client import ClientStream, ServerBusy, connect
from loquent.speech.runtime.events import Final, Word


async def send(stream: ClientStream, source: AudioSource) -> None:
    async for packet in source:
        await stream.send(packet)  # waits while the server is behind
    await stream.end()


async def main(url: str, path: str) -> None:
    source = file_source(path)  # `realtime=True` would play it at its own speed, like a microphone
    async with connect(
        url,
        sample_rate=source.sample_rate,
        channels=source.channels,
        token=os.environ.get("LOQUENT_API_KEY"),
    ) as stream:
        print(f"model {stream.ready['model']}", file=sys.stderr)
        # Words come while audio goes, so the two happen side by side.
        sending = asyncio.create_task(send(stream, source))
        async for event in stream:  # ends when the server has sent everything
            if isinstance(event, Word):
                print(event.text, end="", flush=True)
            elif isinstance(event, Final):
                print()
        await sending


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except ServerBusy as busy:
        sys.exit(f"no room at the moment: {busy}")
