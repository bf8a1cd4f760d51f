# A QMP client for tests: commands, events with deadlines, nothing hidden.
# SPDX-License-Identifier: Apache-2.0
import json
import os
import select
import socket
import time


class QmpError(Exception):
    """The reply was an error; .error is {class, desc}."""

    def __init__(self, error):
        super().__init__(error["desc"])
        self.error = error


class Qmp:
    def __init__(self, path, deadline=20.0):
        end = time.monotonic() + deadline
        self.path = path
        self.buffer = b""
        self.events = []
        self.sock = None
        while self.sock is None:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
                self.sock = sock
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                if time.monotonic() > end:
                    raise TimeoutError(f"no QMP at {path}")
                wait_for_change(os.path.dirname(path), 0.02)
        self.greeting = self.receive(deadline)
        assert "QMP" in self.greeting, self.greeting
        self.cmd("qmp_capabilities")

    def fileno(self):
        return self.sock.fileno()

    def receive(self, timeout):
        """One JSON object from the wire."""
        end = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError("nothing on QMP in time")
            data = self.sock.recv(65536)
            if not data:
                raise EOFError("QMP connection closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def send(self, name, **arguments):
        message = {"execute": name}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.sock.sendall(json.dumps(message).encode())

    def reply(self, timeout=20.0):
        end = time.monotonic() + timeout
        while True:
            message = self.receive(max(0.0, end - time.monotonic()))
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise QmpError(message["error"])
            else:
                return message["return"]

    def cmd(self, name, timeout=20.0, **arguments):
        self.send(name, **arguments)
        return self.reply(timeout)

    def hmp(self, line):
        return self.cmd("human-monitor-command", command_line=line)

    def wait_event(self, name, timeout=20.0, **data):
        """The next event @name whose data has @data; events before it stay in self.events."""
        end = time.monotonic() + timeout
        seen = 0
        while True:
            for i in range(seen, len(self.events)):
                event = self.events[i]
                if event["event"] == name and all(
                        event.get("data", {}).get(k) == v for k, v in data.items()):
                    del self.events[i]
                    return event
            seen = len(self.events)
            message = self.receive(max(0.0, end - time.monotonic()))
            assert "event" in message, message
            self.events.append(message)

    def wait_status(self, wanted, timeout=30.0):
        """query-migrate until its status is in @wanted; the reply."""
        end = time.monotonic() + timeout
        while True:
            info = self.cmd("query-migrate")
            if info.get("status") in wanted:
                return info
            if time.monotonic() > end:
                raise TimeoutError(f"still {info}")
            select.select([self.sock], [], [], 0.01)

    def close(self):
        self.sock.close()


def wait_for_change(_path, seconds):
    """A bounded poll step, for things that have no event to wait for."""
    select.select([], [], [], seconds)
