"""Processes that are talked with: messages both ways, and each side's end."""

from __future__ import annotations

import os
import sys
import threading

import psutil
import pytest

from workbench.child_process import ChildProcess, Inbox, end, start

ECHO = """
import os, sys
from workbench.child_process import Inbox, send, take_over_streams
incoming, outgoing = take_over_streams()
print("printed")
os.system("echo by a program")
inbox = Inbox(incoming, lambda message: message.get("now") == 1)
inbox.start()
for message in inbox:
    if message.get("die"):
        outgoing.write('{"half of')
        outgoing.flush()
        os._exit(3)
    send(outgoing, {**message, "arguments": sys.argv[1:]})
"""


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """Return a function that starts a process that says what it hears, and what it heard."""
    (tmp_path / "echo_for_tests.py").write_text(ECHO)
    monkeypatch.syspath_prepend(tmp_path)
    started = []

    def starting(on_message=lambda child, message: None):
        heard, ended = [], threading.Event()

        def listen(child, message):
            heard.append(message)
            on_message(child, message)

        child = ChildProcess(
            "echo_for_tests",
            ["one"],
            log=(tmp_path / "log").open("w"),
            on_message=listen,
            on_end=lambda child: ended.set(),
        )
        started.append(child)
        return child, heard, ended

    yield starting
    for child in started:
        child.kill()


def test_only_messages_go_between_them(echo, tmp_path):
    answered = threading.Event()
    child, heard, ended = echo(lambda child, message: answered.set())
    assert child.send({"now": 1})  # dealt with on the way, and not given to whoever iterates
    assert child.send({"text": "ä\n"})
    assert answered.wait(60)
    assert heard == [{"text": "ä\n", "arguments": ["one"]}]
    assert (tmp_path / "log").read_text().split("\n")[:2] == ["printed", "by a program"]
    assert child.exit_code is None
    child.close(30)
    assert ended.wait(30)
    assert child.exit_code == 0
    assert not child.send({"text": "nobody hears it"})


def test_a_message_that_was_cut_off_is_no_message(echo):
    child, heard, ended = echo()
    child.send({"die": True})
    assert ended.wait(60)
    assert heard == []
    assert child.exit_code == 3


def test_what_is_not_understood_ends_the_process_instead_of_waiting_for_ever(echo, monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda fault: told.append(fault.exc_type))

    def refuse(child, message):
        raise ValueError(message)

    child, _, ended = echo(refuse)
    child.send({})
    assert ended.wait(60)
    child.close(60)
    assert child.exit_code not in (0, None)
    assert told == [ValueError]


def test_a_program_ends_when_it_is_told_to(tmp_path):
    with (tmp_path / "log").open("w") as log:
        process = start([sys.executable, "-c", "import time; time.sleep(600)"], log=log)
    child = psutil.Process(process.pid)
    end(process)
    assert not child.is_running()
    assert process.stdin.closed


def test_a_process_that_was_asked_nothing_for_a_while_ends():
    read, write = os.pipe()
    inbox = Inbox(os.fdopen(read), patience=0.5)
    inbox.start()
    os.write(write, b'{"number": 1}\n')
    assert list(inbox) == [{"number": 1}]  # and no more, although the stream stays open
