"""Start a process, talk with it in lines of JSON, and end it: both sides of the talk.

The standard input of a child is its lifeline: it closes when the parent ends, however that does,
and the child ends then, because nobody is there any more to tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

Message = dict[str, Any]


def start(
    command: Sequence[str | Path],
    *,
    log: IO[Any],
    talks: bool = False,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a program whose standard input stays open for as long as this process lives.

    Parameters
    ----------
    command : sequence of str or Path
    log : file
        Where its standard error goes.
    talks : bool
        Whether its standard output is read here. Default: it goes to the log, too.
    environment : dict, optional
        Default: that of this process.
    """
    return subprocess.Popen(
        [os.fspath(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if talks else log,
        stderr=log,
        text=True,
        encoding="utf-8",
        env=environment,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def end(process: subprocess.Popen[str]) -> None:
    """End a process at once, if it still runs, and let go of its streams."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()


class ChildProcess:
    """A module of this package in a process of its own, told and heard in lines of JSON.

    Parameters
    ----------
    module : str
        Run as ``python -m module argument ...``; it calls :func:`take_over_streams`.
    arguments : sequence of str
    log : file
        For what libraries print; closed here.
    on_message : callable
        Called with the child and every message of it, in a background thread.
    on_end : callable
        Called with the child, in the same thread, when it has ended.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: IO[str],
        on_message: Callable[[ChildProcess, Message], None],
        on_end: Callable[[ChildProcess], None],
    ) -> None:
        self._on_message = on_message
        self._on_end = on_end
        with log:
            self._process = start(
                [sys.executable, "-m", module, *arguments],
                log=log,
                talks=True,
                environment=package_environment(),
            )
        self._reader = threading.Thread(target=self._read, name=f"wb-{module}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._process.poll()

    def send(self, message: Message) -> bool:
        """Tell it something; return False if it cannot hear any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def kill(self) -> None:
        """End it at once; :attr:`on_end` is called."""
        self._process.kill()

    def close(self, patience: float) -> None:
        """End it, by its lifeline and after some seconds by force, and wait until it is gone."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not threading.current_thread():
            self._reader.join(patience)

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                if not line.endswith("\n"):  # it was killed while it wrote
                    break
                self._on_message(self, json.loads(line))
        except BaseException:  # of the listener: what the child says is not understood
            self._process.kill()
            raise
        finally:
            self._process.wait()
            end(self._process)
            self._on_end(self)


def take_over_streams() -> tuple[IO[str], IO[str]]:
    """Return the child's standard input and output, for messages and nothing else.

    Nothing else may read the one or write to the other, not even native libraries, whose output
    goes to standard error from now on; and on Windows a library that looks at standard input while
    it is read would wait for ever. An interrupt from the keyboard is for the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming = os.fdopen(os.dup(0), encoding="utf-8")
    outgoing = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return incoming, outgoing


def send(outgoing: IO[str], message: Message) -> None:
    """Tell the parent something."""
    outgoing.write(json.dumps(message) + "\n")
    outgoing.flush()


class Inbox:
    """The messages of the parent, read ahead by a thread, which ends the process when they end.

    Iterating gives them one by one. What a process holds and writes must stand its end at any
    moment.

    Parameters
    ----------
    incoming : text stream
    handle_now : callable, optional
        Called with every message, in the thread; one for which it returns True was dealt with, and
        is not given to whoever iterates.
    patience : float, optional
        Seconds without a message after which the iteration ends. Default: never.
    """

    def __init__(
        self,
        incoming: IO[str],
        handle_now: Callable[[Message], bool] = lambda message: False,
        patience: float | None = None,
    ) -> None:
        self._incoming = incoming
        self._handle_now = handle_now
        self._patience = patience
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self.read, name="wb-inbox", daemon=True).start()

    def read(self) -> None:
        """Read until the stream closes, then end the process at once."""
        try:
            for line in self._incoming:
                message = json.loads(line)
                if not self._handle_now(message):
                    self._messages.put(message)
        finally:
            os._exit(0)

    def __iter__(self) -> Inbox:
        return self

    def __next__(self) -> Message:
        try:
            return self._messages.get(timeout=self._patience)
        except queue.Empty:
            raise StopIteration from None


def package_environment() -> dict[str, str]:
    """Return an environment in which a child finds the packages that this process has.

    Threads that spin while they wait for each other slow every process down where several share
    the cores, as in a classroom; where a process is alone, waiting passively costs nothing.
    """
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    found = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    return found | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
