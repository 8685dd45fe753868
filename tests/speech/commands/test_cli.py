"""The command line with real weights: flags in both spellings, every format, bad input, streams, a server."""

import functools
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import loquent.asr
from loquent.speech import hub
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.arguments import model_name
from loquent.speech.commands.cli import main
from loquent.speech.runtime.events import Final

SAMPLE = Path(str(resources.files("loquent.speech") / "assets" / "sample.flac"))
FAST = ["--beam_size", "1", "--temperature", "0", "--temperature-increment-on-fallback", "None"]
LIVE = ["--stream", "--chunk-ms", "4000"]  # two steps for the recording below
FIRST = "Streaming recognition writes each word down while you are still speaking."


@pytest.fixture(scope="module", autouse=True)
def _one_model() -> Iterator[None]:
    """The commands load the real model, once for all tests."""
    patch = pytest.MonkeyPatch()
    load = loquent.asr.Recognizer.from_pretrained
    patch.setattr(loquent.asr.Recognizer, "from_pretrained", functools.lru_cache(load))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """The first sentence of the sample recording."""
    path = tmp_path_factory.mktemp("speech") / "talk.wav"
    sample = read_audio(SAMPLE)
    write_audio(path, sample.samples[: round(4.2 * sample.sample_rate)], sample.sample_rate)
    return path


@pytest.fixture
def corpus(tmp_path, speech) -> Path:
    """A folder: two recordings of one name, one below, one that is damaged, and a file of another kind."""
    folder = tmp_path / "corpus"
    (folder / "below").mkdir(parents=True)
    shutil.copy(speech, folder / "talk.wav")
    write_audio(folder / "talk.flac", np.zeros(16000, np.int16), 16000)
    write_audio(folder / "below" / "silence.wav", np.zeros(16000, np.int16), 16000)
    (folder / "broken.wav").write_bytes(b"no audio either")
    (folder / "notes.txt").write_text("no audio")
    return folder


class TestUsage:
    def test_help_imports_nothing_heavy(self):
        script = (
            "import sys\nfrom loquent.speech.commands.cli import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
            "heavy = {'torch', 'numpy', 'numba', 'soundfile', 'uvicorn', 'huggingface_hub'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert all(command in shown for command in ("transcribe", "listen", "serve", "models"))

    def test_the_recipes_are_listed(self, capsys):
        assert main(["train", "--list"]) == 0
        assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {"commands", "causal_base"}

    def test_runs_as_a_module(self):
        command = [sys.executable, "-m", "loquent.speech", "--version"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(r"loquent \d+\.\d+\.\d+\S*\n", shown)

    @pytest.mark.parametrize(
        ("argv", "complaint"),
        [
            ([], "COMMAND"),
            (["transcribe"], "FILE"),
            (["transcribe", "a.wav", "--beam-size", "x"], "--beam-size: invalid int value: 'x'"),
            (["transcribe", "a.wav", "--no_such_flag"], "--no-such-flag"),
            (["transcribe", "a.wav", "--beam-size", "0"], "--beam-size: expected 1 or more, got 0"),
            (["transcribe", "a.wav", "--suppress_tokens", "a,b"], "--suppress-tokens"),
            (["transcribe", "a.wav", "--threads", "-1"], "--threads: expected 0 or more, got -1"),
            (["transcribe", "a.wav", "--compute-type", "float7"], "'float7'"),
            (["transcribe", "a.wav", "--device", "abacus"], "'abacus'"),
            (["transcribe", "a.wav", "--chunk_length=20"], "there is no --chunk-length: windows have"),
            (["serve", "--policy", "psychic"], "'psychic'"),
            (["serve", "tiny.en"], "unrecognized arguments: tiny.en; for the model to serve, write --model tiny.en"),
            (["train", "commands", "--output", "run", "seed=1", "--seed"], "--seed"),
        ],
    )
    def test_wrong_flags_are_one_line_and_status_2(self, capsys, argv, complaint):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
        self._one_line(capsys, complaint, "--help")

    @pytest.mark.parametrize(
        ("argv", "complaint"),
        [
            (["transcribe", str(SAMPLE), "-f", "all"], "--output-dir"),
            (["transcribe", str(SAMPLE), str(Path(__file__)), "-f", "srt"], "--output-dir"),
            (["transcribe", str(SAMPLE), "--stream", "--best_of=4"], "--best-of has no effect with --stream"),
            (["transcribe", str(SAMPLE), "--policy", "alignatt"], "--policy needs --stream"),
            (["transcribe", str(SAMPLE), "--vad-threshold", "0.3"], "--vad-threshold needs --vad-filter"),
            (["transcribe", str(SAMPLE), "--vad-filter", "--vad-threshold", "2"], "<= --vad-threshold <= 1"),
            (["transcribe", str(SAMPLE), "--skip-existing"], "--skip-existing needs --output-dir"),
            (["transcribe", str(SAMPLE), "--fp16", "True"], "--compute-type"),
            (["transcribe", str(SAMPLE), "--model", "tiny.en", "--language", "klingon"], "--language: 'klingon'"),
            (["transcribe", str(SAMPLE), "--stream", "--chunk_ms", "7"], "--chunk-ms: expected a multiple of 20"),
            (
                ["transcribe", str(SAMPLE), "--stream", "--policy=alignatt", "--commit", "at-once"],
                "--commit: 'at-once' is for the policy 'incremental'",
            ),
            (["transcribe", str(SAMPLE), "--chunk_ms", "500"], "--chunk-ms is not for the model 'tiny.en'"),
            (["transcribe", str(SAMPLE), "--head", "ctc"], "--head is not for the model"),
            (["transcribe", str(SAMPLE), "--stream", "--head", "ctc"], "--head is not for the model"),
            (["transcribe", str(SAMPLE), "--stream", "--phrase-boost", "0"], "--phrase-boost: expected a number"),
            (["transcribe", str(SAMPLE), "--phrase", "x" * 201], "--phrase: expected at most 1000 of 200 characters"),
            (
                ["transcribe", str(SAMPLE), "--model", "loquent/commands", "--initial-prompt", "x"],
                "--initial-prompt is not for the model 'loquent/commands'",
            ),
            (["transcribe", str(SAMPLE), "--temperature", "-0.5"], "--temperature: expected 0 or more, got -0.5"),
            (["transcribe", str(SAMPLE), "--clip_timestamps", "5,2"], "--clip-timestamps: must not decrease"),
            (["transcribe", str(SAMPLE), "--clip_timestamps", "5", "--vad-filter"], "--clip-timestamps says"),
            (["transcribe", str(SAMPLE), "--carry_initial_prompt"], "--carry-initial-prompt: there is no --initial"),
            (["transcribe", str(SAMPLE), "--multilingual", "--language", "de"], "--multilingual: "),
            (["transcribe", str(SAMPLE), "--max-line-count", "2", "-f", "srt"], "--max-line-width"),
            (["train", "commands"], "--output FOLDER"),
            (["listen", "--file", str(SAMPLE), "--server", "ftp://host"], "ws://"),
            (["listen", "--file", str(SAMPLE), "--server", "host:1", "--policy", "alignatt"], "--policy"),
            (["listen", "--file", str(SAMPLE), "--microphone", "1"], "--microphone"),
            (["serve", "--port", "99999"], "99999"),
            (["serve", "--model", "tiny.en", "--alias", "whisper=base"], "'base' is not served"),
            (["serve", "--model", "tiny.en", "--alias", "tiny.en=tiny.en"], "expected a new NAME"),
            (["serve", "--voice-alias", "alloy"], "expected a new NAME"),
            (["serve", "--wyoming", "http://host:1"], "http://host:1"),
            (["serve", "--wyoming", "tcp://host"], "tcp://HOST:PORT"),
            (["transcribe", str(SAMPLE), "--adapter", "a", "--adapter", "b"], "--adapter b is one too many"),
            (["transcribe", str(SAMPLE), "--adapter", "a=b"], "--adapter a=b has a name; only `loquent serve`"),
            (["listen", "--file", str(SAMPLE), "--server", "host:1", "--adapter=a", "--adapter=b"], "--adapter b"),
        ],
    )
    def test_flags_that_make_no_sense_together(self, capsys, argv, complaint):
        assert main(argv) == 2
        self._one_line(capsys, complaint)

    @pytest.mark.parametrize(
        ("argv", "complaint"),
        [
            (["transcribe", str(SAMPLE), "--model", "no such model"], "unknown model 'no such model'"),
            (["train", "nothing", "--output", "run", "seed=1"], "no configuration named 'nothing'"),
            (["transcribe", str(SAMPLE), "--model", "tiny.en", "--language", "de"], "'de'"),
            (["transcribe", str(SAMPLE), "--model", "tiny.en", "--multilingual"], "this model knows English only"),
            (["transcribe", str(SAMPLE), "--device", "cuda:99"], "'cuda:99' is not there"),
            (["transcribe", str(SAMPLE), "--model", "loquent/commands", "--chunk-ms", "7"], "chunks of"),
            (["listen", "--file", "nowhere.wav"], "nowhere.wav"),
            (["listen", "--file", str(SAMPLE), "--server", "127.0.0.1:9"], "is the server running?"),
            (["serve", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8000"),
            (["transcribe", str(SAMPLE), "--adapter", "nowhere"], "unknown adapter 'nowhere'"),
        ],
    )
    def test_what_a_user_can_mend_is_one_line_and_status_1(self, capsys, argv, complaint):
        assert main(argv) == 1
        self._one_line(capsys, complaint)

    @pytest.mark.parametrize("head", ["ctc", "transducer"])
    def test_uploads_go_through_the_head_of_the_server(self, monkeypatch, head):
        served = {}
        monkeypatch.setattr(
            "loquent.speech.net.server.create_app", lambda engines, limits, **options: served.update(options)
        )
        monkeypatch.setattr("loquent.speech.commands.serve._serve", lambda app, listener, *others: listener.close())
        assert main(["serve", "--port", "0", "--max-sessions", "1", "--model", "loquent/commands", "--head", head]) == 0
        assert served["transcribe"].keywords == {"head": head}
        assert served["transcribe"](np.zeros(16_000, np.float32)).text == ""

    def test_models_and_voices_of_a_server_have_other_names(self, monkeypatch):
        served = {}
        monkeypatch.setattr(
            "loquent.speech.net.server.create_app", lambda engines, limits, **options: served.update(options)
        )
        monkeypatch.setattr("loquent.speech.commands.serve._serve", lambda app, listener, *_: listener.close())
        flags = [
            "serve",
            "--port",
            "0",
            "--max-sessions",
            "1",
            "--model",
            "loquent/commands",
            "--speak",
            "loquent/voice",
        ]
        names = ["--alias", "whisper-1=loquent/commands", "--alias", "tts-1=loquent/voice"]
        assert main([*flags, *names, "--voice-alias", "alloy=alto"]) == 0
        assert served["aliases"] == {"whisper-1": "loquent/commands", "tts-1": "loquent/voice"}
        assert served["voice_aliases"] == {"alloy": "alto"}
        assert main([*flags, "--voice-alias", "alloy=nobody"]) == 2

    def test_the_language_of_a_server_is_that_of_its_streams(self, capsys, monkeypatch):
        served = {}
        monkeypatch.setattr(
            "loquent.speech.net.server.create_app", lambda engines, limits, **options: served.update(engines)
        )
        monkeypatch.setattr("loquent.speech.commands.serve._serve", lambda app, listener, *others: listener.close())
        flags = ["--port", "0", "--max-sessions", "1", "--model", "loquent/commands", "--language"]
        assert main(["serve", *flags, "English"]) == 0
        assert served["loquent/commands"].task.settings.language == "English"
        assert main(["serve", *flags, "de"]) == 1
        assert "recognises 'en' only" in capsys.readouterr().err

    def test_debug_shows_where(self, capsys, monkeypatch):
        assert main(["listen", "--file", "nowhere.wav", "--debug"]) == 1
        assert "Traceback" in capsys.readouterr().err
        monkeypatch.setenv("LOQUENT_DEBUG", "1")
        assert main(["listen", "--file", "nowhere.wav"]) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_the_model_fits_the_language(self):
        wishes = [(None, None), ("English", "transcribe"), ("de", "transcribe"), (None, "translate")]
        names = [model_name(Namespace(model=None, language=language, task=task)) for language, task in wishes]
        assert names == ["tiny.en", "tiny.en", "base", "base"]
        assert model_name(Namespace(model="small.en", language="de", task=None)) == "small.en"

    def test_without_packages_a_model_is_fetched_and_not_the_shipped_one(self, monkeypatch, tmp_path):
        monkeypatch.setattr(hub.WeightPackage, "locate", lambda package: None)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        assert {checkpoint.name for checkpoint in hub.installed()} <= hub.SHIPPED.keys()
        names = [model_name(Namespace(model=None, language=language, task=None)) for language in (None, "de")]
        assert names == ["tiny.en", "base"]

    @staticmethod
    def _one_line(capsys, *complaints):
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = [line for line in captured.err.splitlines() if not line.startswith("Listening to")]
        assert len(lines) == 1
        assert lines[0].startswith("loquent: ")
        assert all(complaint in lines[0] for complaint in complaints)


class TestTranscribe:
    def test_text_goes_to_stdout_and_nothing_to_stderr(self, capsys, speech):
        assert main(["transcribe", str(speech), *FAST]) == 0
        assert capsys.readouterr() == (FIRST + "\n", "")

    def test_both_spellings_and_whisper_s_switches(self, capsys, speech):
        hyphens = ["--word-timestamps", "--output-format=json", "--condition-on-previous-text", "false", str(speech)]
        underscores = ["--word_timestamps", "True", "--output_format=json", "--condition_on_previous_text=False"]
        texts = []
        for argv in (hyphens, [str(speech), *underscores]):
            assert main(["transcribe", *FAST, *argv]) == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
        words = [word for segment in json.loads(texts[0])["segments"] for word in segment["words"]]
        assert [word["text"].strip() for word in words] == FIRST.split()

    def test_every_format(self, capsys, speech, tmp_path):
        assert main(["transcribe", str(speech), "-f", "all", "-o", str(tmp_path / "new" / "out"), *FAST]) == 0
        assert capsys.readouterr() == ("", "")
        written = {path.suffix: path.read_text("utf-8") for path in (tmp_path / "new" / "out").iterdir()}
        assert set(written) == {".txt", ".srt", ".vtt", ".tsv", ".json"}
        assert written[".txt"] == FIRST + "\n"
        assert written[".vtt"].startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0")
        assert json.loads(written[".json"])["language"] == "en"
        assert all(FIRST in text for text in written.values())

    def test_lines_of_captions(self, capsys, speech):
        assert main(["transcribe", str(speech), "-f", "srt", "--max_line_width=30", "--max_line_count=1", *FAST]) == 0
        out = capsys.readouterr().out
        assert out.count("-->") == 3
        assert "Streaming recognition writes\n" in out

    def test_bad_files_among_good_ones(self, capsys, corpus, tmp_path):
        out = tmp_path / "out"
        names = [str(corpus), str(corpus / "talk.wav"), str(corpus / "*.flac"), str(corpus / "*.ogg"), "gone.wav"]
        assert main(["transcribe", *names, "-o", str(out), *FAST]) == 1
        complaints = capsys.readouterr().err.splitlines()
        assert complaints[0] == "loquent: 3 of 6 could not be transcribed:"
        for complaint, name in zip(complaints[1:], ["*.ogg", "gone.wav", "broken.wav"], strict=True):
            assert complaint.split(": ")[0].endswith(name)
        # Neither talk.wav nor talk.flac takes the other's place, and folders are kept apart.
        written = {os.fspath(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        assert written == {"talk.wav.txt", "talk.flac.txt", "below/silence.txt"}
        assert (out / "talk.wav.txt").read_text() == FIRST + "\n"

    def test_a_transcript_that_cannot_be_written_costs_no_other(self, capsys, corpus, speech, tmp_path):
        out = tmp_path / "out"
        (out / "talk.wav.txt").mkdir(parents=True)  # in the way
        assert main(["transcribe", str(corpus / "talk.wav"), str(corpus / "talk.flac"), "-o", str(out), *FAST]) == 1
        complaint = capsys.readouterr().err.splitlines()
        assert complaint[0] == "loquent: 1 of 2 could not be transcribed:"
        assert "cannot write" in complaint[1]
        assert "talk.wav.txt" in complaint[1]
        assert (out / "talk.flac.txt").is_file()
        assert {path.name for path in out.iterdir()} == {"talk.wav.txt", "talk.flac.txt"}

    def test_a_batch_goes_on_where_it_was_interrupted(self, capsys, corpus, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        (out / "talk.wav.txt").write_text("kept")
        names = [str(corpus / "talk.wav"), str(corpus / "talk.flac")]
        assert main(["transcribe", *names, "-o", str(out), "--skip-existing", *FAST]) == 0
        assert (out / "talk.wav.txt").read_text() == "kept"
        assert (out / "talk.flac.txt").is_file()
        assert capsys.readouterr().err == "loquent: 1 of 2 have their files already\n"

    @pytest.mark.parametrize("way", [FAST, LIVE, ["--model", "loquent/commands"]], ids=["whole", "live", "conformer"])
    def test_a_recording_that_was_cut_short_gives_its_text_and_a_warning(self, capsys, speech, tmp_path, way):
        audio, whole = read_audio(speech), tmp_path / "cut.flac"
        write_audio(whole, audio.samples, audio.sample_rate)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
        assert main(["transcribe", str(whole), *way]) == 0
        captured = capsys.readouterr()
        if "--model" not in way:
            assert captured.out.lower().startswith("streaming recognition writes")
        warnings = captured.err.splitlines()
        assert all(warning.startswith("loquent: '") and "cut.flac' is damaged" in warning for warning in warnings)
        assert any("cut short" in warning for warning in warnings)

    def test_what_a_terminal_cannot_show_costs_no_text(self, speech, tmp_path):
        """An ASCII terminal, and a file whose name is neither UTF-8 nor on one line."""
        odd = os.fsencode(tmp_path) + b"/caf\xe9\n.wav"
        shutil.copy(speech, odd)
        command = [sys.executable, "-m", "loquent.speech", "transcribe", odd, speech, "gone\u2603.wav", *FAST]
        ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, env=ascii_only)
        assert done.returncode == 1
        assert done.stdout.decode("ascii").count(FIRST) == 2
        assert rb"caf\xe9\n.wav <==" in done.stdout
        assert b"gone" in done.stderr
        assert main(["transcribe", os.fsdecode(odd), "-o", str(tmp_path / "out"), *FAST]) == 0
        assert os.listdir(os.fsencode(tmp_path / "out")) == [b"caf\xe9\n.txt"]

    def test_several_recordings_on_stdout(self, capsys, corpus, speech):
        assert main(["transcribe", str(corpus / "talk.wav"), str(corpus / "broken.wav"), str(speech), *FAST]) == 1
        titles = [f"==> {path} <==" for path in (corpus / "talk.wav", speech)]
        assert capsys.readouterr().out == f"{titles[0]}\n{FIRST}\n\n{titles[1]}\n{FIRST}\n"

    def test_standard_input(self, capsys, monkeypatch, speech):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(speech.read_bytes())))
        assert main(["transcribe", "-", *FAST]) == 0
        assert capsys.readouterr().out == FIRST + "\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"not audio")))
        assert main(["transcribe", "-", *FAST]) == 1
        assert "  stdin: 'stdin' cannot be read as audio" in capsys.readouterr().err

    def test_voice_activity_filter(self, capsys, corpus):
        names = [str(corpus / name) for name in ("talk.wav", "talk.flac", "broken.wav")]
        assert main(["transcribe", "--vad_filter", *names, *FAST]) == 1
        captured = capsys.readouterr()
        assert captured.out == f"==> {names[0]} <==\n{FIRST}\n\n==> {names[1]} <==\n"
        assert "broken.wav" in captured.err

    def test_verbose_shows_segments_on_stderr(self, capsys, speech, tmp_path):
        assert main(["transcribe", "--verbose", str(speech), "-o", str(tmp_path), *FAST]) == 0
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.fullmatch(r"\[00:00\.\d{3} --> 00:0\d\.\d{3}\] " + re.escape(FIRST) + "\n", captured.err)

    def test_ctrl_c_keeps_what_is_done(self, request, capsys, monkeypatch, corpus, tmp_path):
        from loquent.speech.commands.results import Results

        finished = Results.finished

        def interrupt_after(self, recording, *told):
            finished(self, recording, *told)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(Results, "finished", interrupt_after)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in background
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
        out = tmp_path / "out"
        names = [str(corpus / "talk.wav"), str(corpus)]
        assert main(["transcribe", *names, "--batch_size=1", "-o", str(out), *FAST]) == 130
        assert [path.name for path in out.iterdir()] == ["talk.wav.txt"]
        assert capsys.readouterr().err == "loquent: interrupted\n"


def session_text(path: Path) -> str:
    """What a session makes of a recording that comes in one packet."""
    audio = read_audio(path)
    session = loquent.asr.Recognizer.from_pretrained().session(sample_rate=audio.sample_rate, chunk_ms=4000)
    events = session.push(audio) + session.finish()
    return "".join(event.text + "\n" for event in events if isinstance(event, Final))


class TestStream:
    def test_text_is_that_of_a_session_and_one_packet(self, capsys, speech):
        assert main(["transcribe", str(speech), *LIVE]) == 0
        out = capsys.readouterr().out
        assert out.lower() == FIRST.lower() + "\n"
        assert out == session_text(speech)

    def test_captions(self, capsys, corpus, tmp_path):
        names = [str(corpus / "talk.wav"), str(corpus / "broken.wav")]
        assert main(["transcribe", *names, *LIVE, "-f", "json", "-o", str(tmp_path)]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "broken.wav" in captured.err
        (segment,) = json.loads((tmp_path / "talk.json").read_text())["segments"]
        assert segment["text"].lower() == FIRST.lower()
        assert "".join(word["text"] for word in segment["words"]).strip() == segment["text"]
        assert 0 <= segment["start"] < segment["end"] < 4.3

    def test_captions_on_stdout(self, capsys, speech):
        assert main(["transcribe", str(speech), *LIVE, "-f", "srt"]) == 0
        captions = rf"1\n[\d:,]+ --> [\d:,]+\n{re.escape(FIRST)}\n\n"
        assert re.fullmatch(captions, capsys.readouterr().out, re.IGNORECASE)

    def test_captions_are_cut_at_sentences_and_the_language_is_told(self, capsys, tmp_path):
        assert main(["transcribe", str(SAMPLE), *LIVE, "-f", "all", "-o", str(tmp_path)]) == 0
        texts = re.findall(r"-->.*\n(.+)\n", (tmp_path / "sample.srt").read_text("utf-8"))
        assert len(texts) >= 3
        assert all(len(text) <= 84 for text in texts)
        assert sum(text.endswith(".") for text in texts) >= 3
        assert json.loads((tmp_path / "sample.json").read_text("utf-8"))["language"] == "en"


class TestServe:
    def test_listen_to_a_server(self, capsys, monkeypatch, speech):
        monkeypatch.setenv("LOQUENT_API_KEY", "sesame")
        command = [sys.executable, "-m", "loquent.speech", "serve", "--port=0", "--max_sessions=2", "--chunk-ms=4000"]
        serve = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            told = ""
            while (found := re.search(r"ws://(\S+)/v1/stream\n", told)) is None:
                line = serve.stderr.readline()
                assert line, f"the server ended: {told}"
                told += line
            assert f"http://{found[1]}/" in told
            assert main(["listen", "--file", str(speech), "--server", found[1]]) == 0
            assert capsys.readouterr().out.lower() == FIRST.lower() + "\n"
            monkeypatch.delenv("LOQUENT_API_KEY")
            assert main(["listen", "--file", str(speech), "--server", found[1]]) == 1
            assert "token" in capsys.readouterr().err
        finally:
            serve.send_signal(signal.SIGINT)
            serve.communicate()
        assert serve.returncode == 0


class TestModels:
    def test_json(self, capsys):
        assert main(["models", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        tiny = next(one for one in told["installed"] if one["name"] == "tiny.en")
        assert tiny["source"] == "package"
        assert tiny["licence"] == "MIT"
        assert tiny["size_bytes"] > 70e6
        assert Path(tiny["path"], "model.bin").is_file()
        assert told["hub"]["small"] == "openai/whisper-small"

    def test_table(self, capsys):
        assert main(["models"]) == 0
        header, *rows = capsys.readouterr().out.splitlines()
        assert header.split() == ["NAME", "KIND", "SOURCE", "SIZE", "LICENCE", "PATH"]
        assert rows[0].split()[:6] == ["tiny.en", "recognition", "package", "78", "MB", "MIT"]
