"""A server of your own: two models by name, a key, limits, and an endpoint for whole files.

    LOQUENT_API_KEY=secret python examples/serve_app.py 8000

Then, in another terminal, `examples/websocket_client.py`. The same page with a microphone as that of `loquent serve` is
at http://127.0.0.1:8000/.
"""

import os
import sys

from loquent.asr import Recognizer
from loquent.speech import Engine
from loquent.speech.net.limits import Limits
from loquent.speech.net.server import create_app, serve


def main(port: int) -> None:
    recognizer = Recognizer.from_pretrained("tiny.en")  # loaded once, for both models and for files
    models = {
        # Clients that name no model get the first one. A step waits up to 20 ms for others to join it.
        "quick": Engine(recognizer.streaming_task(), capacity=8, max_wait_s=0.02),
        "careful": Engine(recognizer.streaming_task(policy="local-agreement"), capacity=4),
    }
    app = create_app(
        models,
        Limits(max_duration_s=3600.0, idle_timeout_s=30.0),
        max_streams=8,  # of both models together: they share this machine
        transcribe=recognizer.transcribe,  # for POST /v1/audio/transcriptions
        token=os.environ["LOQUENT_API_KEY"],
    )
    # The application is an ASGI one and could be mounted in a larger one; `serve` also ends streams in an orderly way
    # when the process is told to stop.
    serve(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8000)
