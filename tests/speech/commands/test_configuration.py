"""A server's settings from a file, the environment and flags; what is wrong is said with its place."""

import re

import pytest

from loquent.speech.commands.cli import _parsed
from loquent.speech.commands.serve import _limits


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Function that parses `loquent serve` with a file, variables and flags."""

    def parse(file="", *flags, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(f"LOQUENT_SERVE_{name}", value)
        path = tmp_path / "serve.yaml"
        path.write_text(file)
        return _parsed(["serve", "--config", str(path), *flags])

    return parse


def test_flags_win_over_variables_and_these_over_the_file(serve):
    file = "port: 1\nhost: a\nmax_sessions: 3\nallowed-origin: [a.example, b.example]\nspeak: null"
    got = serve(file, "--port", "3", HOST="b", PORT="2", LOG_LEVEL="info")
    assert (got.port, got.host, got.max_sessions, got.log_level) == (3, "b", 3, "info")
    assert got.allowed_origin == ["a.example", "b.example"]
    assert got.speak == "none"
    assert serve(file, "--allowed-origin=c.example").allowed_origin == ["c.example"]
    assert serve(file, ALLOWED_ORIGIN="d.example, e.example").allowed_origin == ["d.example", "e.example"]


def test_the_environment_names_the_file(serve, monkeypatch, tmp_path):
    (tmp_path / "other.yaml").write_text("translate: true\nadapter: {a: x, b: y}")
    monkeypatch.setenv("LOQUENT_SERVE_CONFIG", str(tmp_path / "other.yaml"))
    got = _parsed(["serve"])
    assert got.translate == ["loquent/en-es"]
    assert got.adapters == ["a=x", "b=y"]


def test_limits_are_reached_from_everywhere(serve):
    got = serve(
        "limit: {max_load: 0.5, max_duration_s: null, buffer_s: 3}", "--limit", "max_lag_s=2", LIMIT="buffer_s=4"
    )
    limits = _limits(got)
    assert (limits.max_load, limits.max_duration_s, limits.buffer_s, limits.max_lag_s) == (0.5, None, 4, 2)
    assert limits.max_connections_per_client == 128
    assert _limits(serve("connections_per_client: none")).max_connections_per_client is None


@pytest.mark.parametrize(
    ("file", "variables", "expected"),
    [
        ("prot: 1", {}, r"serve\.yaml: prot: there is no such setting; did you mean port\?"),
        ("", {"MAX_SESSION": "1"}, r"\$LOQUENT_SERVE_MAX_SESSION: .* did you mean LOQUENT_SERVE_MAX_SESSIONS\?"),
        ("port: many", {}, r"serve\.yaml: port: invalid int value 'many'"),
        ("port: [1]", {}, "takes one value, got a list"),
        ("log-level: loud", {}, "log-level: expected one of critical"),
        ("limit: {max_lod: 1}", {}, "max_lod: unknown; did you mean max_load"),
        ("limit: {max_load: -1}", {}, "max_load has to be positive"),
        ("", {"LIMIT": "max_load"}, "expected NAME=VALUE"),
        ("- port", {}, "holds a list"),
        ("port: {", {}, "is not YAML"),
        ('port: 1\napi-key: "secret', {}, r"line 2 is not YAML: (?!.*secret)"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(serve, capsys, file, variables, expected):
    with pytest.raises(SystemExit) as end:
        serve(file, **variables)
    assert end.value.code == 2
    assert re.search(expected, capsys.readouterr().err)


def test_other_commands_take_no_file(monkeypatch):
    monkeypatch.setenv("LOQUENT_SERVE_PROT", "1")
    monkeypatch.setenv("LOQUENT_MODELS_PORT", "1")
    assert _parsed(["models", "--json"]).json
