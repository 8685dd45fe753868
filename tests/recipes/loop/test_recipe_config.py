"""Configurations are checked key by key."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest

from loquent.recipes.loop.config import ConfigError, parse_config, read_config
from loquent.recipes.train import CONFIGS, read_run


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float = 0.1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    fast: bool = False
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    others: dict[str, Inner] = field(default_factory=dict)
    maybe: Inner | None = None


def test_values_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_OF_TEST", "there")
    (tmp_path / "a.yaml").write_text(
        "inner: {size: 3, rate: 1e-3}\nname: ${DATA_OF_TEST}/x\nkind: b\nfast: true\npair: [1, 2.5]\nmany: [3, 1]\n"
        "others: {one: {size: 1}, two: {size: 2}}\nmaybe: null\n"
    )
    assert parse_config(Outer, read_config(tmp_path / "a.yaml")) == Outer(
        Inner(3, 0.001), "there/x", "b", True, (1.0, 2.5), (3, 1), {"one": Inner(1), "two": Inner(2)}, None
    )


def test_overrides(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("inner: {size: 3}\n")
    config = read_config(tmp_path / "a.yaml", ["inner.size=5", "others.new.size=7", "many=[1, 2]", "name=y=z"])
    assert parse_config(Outer, config) == Outer(Inner(5), "y=z", many=(1, 2), others={"new": Inner(7)})
    for override, complaint in (("inner.size", "expected key=value"), ("inner.size.more=1", "size is a value")):
        with pytest.raises(ConfigError, match=complaint):
            read_config(tmp_path / "a.yaml", [override])


def test_a_base_holds_where_a_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("inner: {size: 3, rate: 0.5}\nname: base\nkind: b\n")
    (tmp_path / "a.yaml").write_text("base: base.yaml\ninner: {size: 4}\nname: a\n")
    config = read_config(tmp_path / "a.yaml", ["inner.rate=0.25"])
    assert parse_config(Outer, config) == Outer(Inner(4, 0.25), "a", "b")
    (tmp_path / "b.yaml").write_text("base: nothing.yaml\n")
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.yaml"):
        read_config(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"inner": {"size": 1}, "nam": "x"}, r"^nam: unknown; did you mean name\?"),
        ({"inner": {"size": 1, "colour": 2}}, r"^inner\.colour: unknown; expected one of size, rate"),
        ({"inner": {}}, r"^inner\.size: missing"),
        ({}, "^inner: missing"),
        ({"inner": 3}, "^inner: expected names with values, got 3"),
        ({"inner": {"size": 1.5}}, r"^inner\.size: expected a whole number, got 1\.5"),
        ({"inner": {"size": True}}, r"^inner\.size: expected a whole number, got True"),
        ({"inner": {"size": 1, "rate": "fast"}}, r"^inner\.rate: expected a number, got 'fast'"),
        ({"inner": {"size": 0}}, r"^inner: size must be at least 1, got 0"),
        ({"inner": {"size": 1}, "kind": "c"}, "^kind: expected one of a, b, got 'c'"),
        ({"inner": {"size": 1}, "fast": "yes"}, "^fast: expected true or false, got 'yes'"),
        ({"inner": {"size": 1}, "pair": [1]}, "^pair: expected 2 values, got 1"),
        ({"inner": {"size": 1}, "many": [1, "x"]}, r"^many\[1\]: expected a whole number"),
        ({"inner": {"size": 1}, "others": {"one": {"size": "x"}}}, r"^others\.one\.size: expected a whole number"),
        ({"inner": {"size": 1}, "name": "${NOT_SET_IN_TESTS}/x"}, r"^name: \$\{NOT_SET_IN_TESTS\} is not set"),
    ],
)
def test_errors_name_the_key(value: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(Outer, value)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    for name, complaint in (("list", "holds list"), ("bad", "is not YAML"), ("none", "cannot read")):
        with pytest.raises(ConfigError, match=complaint):
            read_config(tmp_path / f"{name}.yaml")


def test_shipped_configurations_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_DATA", "data")
    monkeypatch.setenv("LOQUENT_START", "trained")
    names = [path.stem for path in CONFIGS.glob("*.yaml")]
    assert "commands" in names
    for name in names:
        asked = {"whisper_lora": ["data.folder=data"], "interpreter_lora": ["model=base"]}
        run = read_run(name, asked.get(name, []))
        assert run.training.steps > 0 or run.config.mean_of


def test_what_is_left_out_of_the_data_is_asked_for_in_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_DATA", "data")
    absent = {"kokoro_coffee", "kokoro_digits", "speech_commands"}
    changes = ["data.commands.kokoro_coffee=0", "data.commands.kokoro_digits=0", "data.commands.speech_commands=null"]
    whole, less = read_run("commands"), read_run("commands", changes)
    for one, other in zip((*whole.stages, whole), (*less.stages, less), strict=True):
        every, present = one.config.data.present(), other.config.data.present()
        assert every == one.config.data
        assert every.train.keys() - present.train.keys() == absent
        assert every.valid.keys() - present.valid.keys() == {"speech_commands"}
        assert every.test == present.test


def test_stages_change_a_few_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_DATA", "data")
    (tmp_path / "a.yaml").write_text(
        f"base: {CONFIGS / 'commands.yaml'}\nstages: [{{ctc_only: 7, training: {{steps: 3}}}}, {{}}]\n"
    )
    run = read_run(str(tmp_path / "a.yaml"), ["seed=5", "training.warmup=11", "mean_of={stage-2: 1}"])
    first, second = run.stages
    assert (first.config.ctc_only, first.training.steps, first.training.warmup, first.config.seed) == (7, 3, 11, 5)
    assert (second.config, second.training) == (replace(run.config, mean_of=None), run.training)
    (tmp_path / "b.yaml").write_text(f"base: {tmp_path / 'a.yaml'}\nstages: [{{batch: {{size: 1}}}}]\n")
    with pytest.raises(ConfigError, match=r"^stages\[0\]\.batch\.size: unknown"):
        read_run(str(tmp_path / "b.yaml"))
    with pytest.raises(ConfigError, match=r"^mean_of: stage-3 does not come before; there are 2 stages by then"):
        read_run(str(tmp_path / "a.yaml"), ["mean_of={stage-1: 1, stage-3: 1}"])
    (tmp_path / "m.yaml").write_text(f"base: {CONFIGS / 'commands.yaml'}\nstages: []\nmean_of: {{trained: 2}}\n")
    assert read_run(str(tmp_path / "m.yaml")).config.mean_of == {"trained": 2}
    (tmp_path / "c.yaml").write_text(f"base: {tmp_path / 'a.yaml'}\nstages: [{{mean_of: {{stage-1: 1}}}}]\n")
    with pytest.raises(ConfigError, match=r"^stages\[0\]\.mean_of: stage-1 does not come before"):
        read_run(str(tmp_path / "c.yaml"))
    with pytest.raises(ConfigError, match=r"^stages: expected a list of groups"):
        read_run(str(tmp_path / "a.yaml"), ["stages=3"])


def test_unknown_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration named 'comands'; give a YAML file, or one of .*commands"):
        read_run("comands")
    (tmp_path / "a.yaml").write_text("recipe: bread\n")
    with pytest.raises(ConfigError, match=r"recipe: expected one of conformer, .*got 'bread'"):
        read_run(str(tmp_path / "a.yaml"))
