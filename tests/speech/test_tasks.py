"""Tasks are found by name, and an error says what to install."""

import pytest

from loquent.speech import tasks
from loquent.speech.tasks import TASKS, TaskEntry, TaskError, load_task


@pytest.mark.parametrize("name", TASKS)
def test_every_task_can_be_loaded(name):
    assert callable(load_task(name))
    assert name != "recognizer" or callable(load_task(name).from_pretrained)


def test_unknown_task():
    with pytest.raises(TaskError, match="unknown task 'juggler'; expected one of recognizer"):
        load_task("juggler")


@pytest.mark.parametrize(("extra", "install"), [(None, '"\\."'), ("juggling", '"\\.\\[juggling\\]"')])
def test_missing_package(monkeypatch, extra, install):
    monkeypatch.setitem(tasks.TASKS, "juggler", TaskEntry("juggling_balls.juggler:Juggler", extra))
    with pytest.raises(TaskError, match=f"needs the package 'juggling_balls'.*pip install {install}"):
        load_task("juggler")
