# The octets of docs/live-update.md section 6 and docs/format-state.md, written down a second time.
# SPDX-License-Identifier: Apache-2.0
import array
import json
import select
import socket
import struct
import time

TYPES = ("", "hello", "welcome", "offer", "accept", "refuse", "fds", "ready", "main-ready", "join",
         "joined", "state", "loaded", "go", "running", "abort", "record")
HEADER = struct.Struct("<IHHII")
MAGIC = 0x544C4F4D
FD_HEADER = struct.Struct("<IIIIII")
MAX_FDS = 253


def _crc_table():
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        yield value


CRC_TABLE = tuple(_crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for octet in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ octet) & 0xFF]
    return crc ^ 0xFFFFFFFF


def encode(kind, payload):
    """A frame: @payload is an object, or octets for a state."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return HEADER.pack(MAGIC, TYPES.index(kind), 0, len(payload), crc32c(payload)) + payload


class Channel:
    """One end of a connection that speaks frames, descriptors among them."""

    def __init__(self, sock):
        self.sock = sock

    def fileno(self):
        return self.sock.fileno()

    def _read(self, size, fds, deadline):
        data = b""
        while len(data) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError("no frame in time")
            part, ancillary, _, _ = self.sock.recvmsg(
                size - len(data), socket.CMSG_SPACE(MAX_FDS * 4))
            for level, kind, octets in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(octets[:len(octets) // 4 * 4])
            if not part:
                raise EOFError("the peer closed the connection")
            data += part
        return data

    def receive(self, timeout=20.0):
        """(type, payload) of the next frame."""
        deadline = time.monotonic() + timeout
        none = array.array("i")
        magic, kind, zero, length, crc = HEADER.unpack(self._read(HEADER.size, none, deadline))
        assert (magic, zero) == (MAGIC, 0)
        payload = self._read(length, none, deadline)
        assert not none and crc32c(payload) == crc
        return TYPES[kind], payload if TYPES[kind] == "state" else json.loads(payload)

    def receive_fds(self, timeout=20.0):
        """(manifest, descriptors) of the one batch that follows the frame "fds"."""
        deadline = time.monotonic() + timeout
        fds = array.array("i")
        header = FD_HEADER.unpack(self._read(FD_HEADER.size, fds, deadline))
        mark, version, total, before, here, length = header
        assert (mark, version, before) == (0x5344464D, 1, 0) and total == here == len(fds)
        return Manifest(self._read(length, fds, deadline)), list(fds)

    def send(self, kind, payload=None):
        self.sock.sendall(encode(kind, {} if payload is None else payload))

    def send_fds(self, manifest, fds):
        payload = manifest.encode()
        data = FD_HEADER.pack(0x5344464D, 1, len(fds), 0, len(fds), len(payload)) + payload
        sent = self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                           array.array("i", fds))])
        if sent < len(data):
            self.sock.sendall(data[sent:])

    def close(self):
        self.sock.close()


# ---- structs ----

STRUCT = struct.Struct("<HHII")
FIELD = struct.Struct("<HBBII")
TYPE_STRUCT = 6
SIZES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 1}


class Struct:
    """A struct as a dictionary: tag to [type, flags, elements]."""

    def __init__(self, data):
        self.version, self.min_reader, n_fields, length = STRUCT.unpack_from(data)
        assert length == len(data) - STRUCT.size
        self.fields = {}
        at = STRUCT.size
        for _ in range(n_fields):
            tag, kind, flags, count, length = FIELD.unpack_from(data, at)
            at += FIELD.size
            self.fields[tag] = [kind, flags, self._elements(kind, count, data[at:at + length])]
            at += length
        assert at == len(data)

    @staticmethod
    def _elements(kind, count, data):
        if kind != TYPE_STRUCT:
            size = SIZES.get(kind) or len(data) // max(count, 1)
            return [int.from_bytes(data[i * size:(i + 1) * size], "little") for i in range(count)]
        out = []
        for _ in range(count):
            size = STRUCT.size + STRUCT.unpack_from(data)[3]
            out.append(Struct(data[:size]))
            data = data[size:]
        return out

    def encode(self):
        body = b""
        for tag, (kind, flags, elements) in sorted(self.fields.items()):
            data = b"".join(e.encode() if kind == TYPE_STRUCT else
                            e.to_bytes(SIZES[kind], "little") for e in elements)
            body += FIELD.pack(tag, kind, flags, len(elements), len(data)) + data
        return STRUCT.pack(self.version, self.min_reader, len(self.fields), len(body)) + body

    def __getitem__(self, tag):
        elements = self.fields[tag][2]
        return elements[0] if len(elements) == 1 else elements

    def __setitem__(self, tag, value):
        self.fields[tag][2] = value if isinstance(value, list) else [value]


class Stream:
    """A state stream of which sections can be read and changed."""

    HEADER_BYTES = 128
    SECTION = struct.Struct("<IIII64s")

    def __init__(self, data):
        self.header = data[:self.HEADER_BYTES]
        self.sections = {}
        at = self.HEADER_BYTES
        while data[at:at + 4] == b"SECT":
            head = self.SECTION.unpack_from(data, at)
            body = at + self.SECTION.size + 4
            name = head[4].rstrip(b"\0").decode()
            self.sections[name, head[1]] = (head, Struct(data[body:body + head[3]]))
            at = body + head[3]

    def __getitem__(self, key):
        return self.sections[key][1]

    def encode(self):
        body = b""
        for head, content in self.sections.values():
            data = content.encode()
            section = self.SECTION.pack(*head[:3], len(data), head[4])
            body += section + struct.pack("<I", crc32c(section + data)) + data
        body += b"END." + struct.pack("<I", len(self.sections))
        header = bytearray(self.header[:124])
        struct.pack_into("<Q", header, 16, self.HEADER_BYTES + len(body))
        return bytes(header) + struct.pack("<I", crc32c(header)) + body


class Manifest(Stream):
    """docs/schema/fd-manifest.txt: names, kinds and identities, in the order of the descriptors."""

    NAME, KIND, NUMBER, IDENTITY = 1, 2, 3, 4
    DEV, INO = 1, 2

    @property
    def records(self):
        return self["fd-manifest", 0].fields[1][2]

    def names(self):
        return [bytes(record[self.NAME]).rstrip(b"\0").decode() for record in self.records]

    def index(self, name):
        return self.names().index(name)
