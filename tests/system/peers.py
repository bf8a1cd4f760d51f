# The other side of an update, in Python: a new process that misbehaves, a relay that changes things.
# SPDX-License-Identifier: Apache-2.0
import os
import select
import socket
import threading

from frames import Channel

# What a new process sends, in the order in which it does; what the old one sends before each.
NEW_SENDS = ("welcome", "accept", "ready", "main-ready", "joined", "loaded", "running")
OLD_SENDS = ("hello", "offer", "fds", "go")


def listen(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen(1)
    sock.settimeout(20)
    return sock


class FakeNew:
    """Takes part in an update up to one of its frames, and does @then instead of sending it."""

    WELCOME = {"protocol": 2, "protocol-min": 2, "build": "fake", "features": []}

    def __init__(self, main_path, cpr_path, instead_of, then):
        self.main_path, self.cpr_path = main_path, cpr_path
        self.instead_of, self.then = instead_of, then
        self.error = None
        self.arrived = threading.Event()
        self.cpr_listener, self.main_listener = listen(cpr_path), listen(main_path)
        self.main = self.cpr = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self.cpr = Channel(self.cpr_listener.accept()[0])
            for kind in NEW_SENDS:
                self._before(kind)
                if kind == self.instead_of:
                    self.arrived.set()
                    self.then(self.cpr)
                    return
                self.cpr.send(kind, self.WELCOME if kind == "welcome" else None)
        except (AssertionError, OSError, EOFError) as error:
            self.error = error

    def _expect(self, channel, wanted):
        kind, body = channel.receive()
        assert kind == wanted, (kind, body)

    def _before(self, kind):
        """What the old process says before this side's @kind is due."""
        first = {"welcome": "hello", "accept": "offer", "ready": "fds", "running": "go"}
        if kind in first:
            self._expect(self.cpr, first[kind])
        if kind == "ready":
            for fd in self.cpr.receive_fds()[1]:
                os.close(fd)
        if kind == "joined":
            self.main = Channel(self.main_listener.accept()[0])
            self._expect(self.main, "join")
        if kind == "loaded":
            self._expect(self.main, "state")

    def close(self):
        self._thread.join(30)
        for each in (self.cpr, self.main, self.cpr_listener, self.main_listener):
            if each:
                each.close()
        os.unlink(self.cpr_path)
        os.unlink(self.main_path)
        if self.error:
            raise self.error


class Cut(Exception):
    """Raised by an edit: both connections end instead."""


class Relay:
    """Between an old process and a new one on the cpr channel.

    @edit(kind, body) may change a frame's object, and @edit_fds(manifest, descriptors) what follows
    the frame "fds".  @seen has every frame as it came."""

    def __init__(self, path, new_path, edit=None, edit_fds=None):
        self.path, self.new_path = path, new_path
        self.edit, self.edit_fds = edit or (lambda kind, body: None), edit_fds
        self.seen = {}
        self.error = None
        self.listener = listen(path)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        old = Channel(self.listener.accept()[0])
        new = Channel(socket.socket(socket.AF_UNIX))
        new.sock.connect(self.new_path)
        try:
            while True:
                for source in select.select([old, new], [], [])[0]:
                    self._pass(source, new if source is old else old)
        except (EOFError, OSError, Cut):
            pass  # one side has ended it, or the edit
        except Exception as error:  # pylint: disable=broad-except
            self.error = error  # close() raises it
        finally:
            old.close()
            new.close()

    def _pass(self, source, sink):
        kind, body = source.receive()
        self.seen[kind] = body
        self.edit(kind, body)
        sink.send(kind, body)
        if kind == "fds":
            manifest, fds = source.receive_fds()
            try:
                if self.edit_fds:
                    self.edit_fds(manifest, fds)
                sink.send_fds(manifest, fds)
            finally:
                for fd in fds:
                    os.close(fd)

    def close(self):
        self._thread.join(30)
        self.listener.close()
        os.unlink(self.path)
        assert not self._thread.is_alive()
        if self.error:
            raise self.error
