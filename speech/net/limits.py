"""What a client may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a server. How many streams there are is the capacity of the engines.

    max_connections:      open at a time; below the 1024 files that many systems let a process open.
    max_connections_per_client: from one address, likewise; None: no limit, as behind a proxy all come from one.
    head_timeout_s:       from a connection, or the first byte of another request on it, to the end of a request's head.
    keep_alive_timeout_s: from an answer to the next request.
    max_load:             share of its time that the machine may need for its streams, as measured: another stream is
                          refused as "busy" beyond it.
    max_lag_s:            by which a stream may fall behind its source before the newest are ended as "overloaded".
    max_text_bytes:       of a text message, or of the body of a request for speech.
    max_audio_bytes:      of a binary message.
    buffer_s:             audio that may wait in a stream, in seconds; beyond it the socket is not read, which holds the
                          client back.
    buffer_words:         likewise, words of text.
    speech_ahead_s:       speech that may wait to be sent, in seconds; beyond it the stream pauses.
    stall_timeout_s:      how long a full buffer, or speech over HTTP, may go without progress before the stream fails
                          as "overloaded".
    handshake_timeout_s:  from the connection to "start".
    idle_timeout_s:       without any message, or any bytes of an upload; for the body of a request for speech.
    max_duration_s:       of audio in a stream; None: no end.
    max_markers:          that may wait in a stream.
    max_queue_bytes:      of events that wait for a slow reader.
    send_timeout_s:       that a client may take to read on before it is disconnected.
    max_upload_bytes:     of a file sent to be transcribed.
    max_upload_s:         of audio in such a file, and of sending it.
    max_uploads:          waiting, transcribed or answered at a time.
    max_receiving:        uploads being received at a time; the slowest gives way to the next one if it is slower than
                          any speech.
    max_models:           in memory at a time, those that are being unloaded included.
    session_every_s:      of input between two times that a stream that can be resumed is saved; a second of text is 15
                          characters.
    session_keep_s:       that a stream waits for its client to resume it.
    max_kept_sessions:    streams that wait so; the oldest give way.
    max_kept_bytes:       of all of them together, likewise.
    max_unconfirmed_bytes: of events that a client has not acknowledged, of a stream that can be resumed.
    """

    max_connections: int = 900
    max_connections_per_client: int | None = 128
    head_timeout_s: float = 10.0
    keep_alive_timeout_s: float = 5.0
    max_load: float = 0.8
    max_lag_s: float = 5.0
    max_text_bytes: int = 65_536
    max_audio_bytes: int = 1_048_576
    buffer_s: float = 10.0
    buffer_words: int = 1000
    speech_ahead_s: float = 5.0
    stall_timeout_s: float = 30.0
    handshake_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    max_duration_s: float | None = None
    max_markers: int = 1000
    max_queue_bytes: int = 1_048_576
    send_timeout_s: float = 20.0
    max_upload_bytes: int = 256 * 2**20
    max_upload_s: float = 2 * 3600.0
    max_uploads: int = 8
    max_receiving: int = 32
    max_models: int = 8
    session_every_s: float = 5.0
    session_keep_s: float = 300.0
    max_kept_sessions: int = 256
    max_kept_bytes: int = 2**30
    max_unconfirmed_bytes: int = 8 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"limit {name} has to be positive, got {value}")
