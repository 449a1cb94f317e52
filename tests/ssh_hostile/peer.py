"""A client that keeps to the transport of SSH and to nothing else: what comes after the keys are exchanged
is written byte by byte. Prints what the server answered, one message's number a line, and how it ended."""

import argparse
import base64
import os
import socket
import struct
import sys
import threading
import time

import paramiko
from paramiko.message import Message

IGNORE, SERVICE_REQUEST, KEXINIT = 2, 5, 20
USERAUTH_REQUEST = 50
GLOBAL_REQUEST, CHANNEL_OPEN, WINDOW_ADJUST, CHANNEL_DATA, CHANNEL_REQUEST = 80, 90, 93, 94, 98
OPEN_CONFIRMATION, OPEN_FAILURE = 91, 92
CERTIFICATE = b"ssh-ed25519-cert-v01@openssh.com"
PATIENCE = 30


def string(value):
    return struct.pack(">I", len(value)) + value


class Peer:
    """The transport; messages from 50 on are counted here and nowhere else."""

    def __init__(self, port):
        self.seen, self.last, self.changed = {}, {}, threading.Condition()
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.transport = paramiko.Transport(self.socket)
        self.transport.start_client(timeout=PATIENCE)
        packetizer = self.transport.packetizer
        read = packetizer.read_message

        def counted():
            while True:
                kind, message = read()
                if kind < USERAUTH_REQUEST and kind != 6:
                    return kind, message
                with self.changed:
                    self.seen[kind] = self.seen.get(kind, 0) + 1
                    self.last[kind] = message.asbytes()
                    self.changed.notify_all()

        packetizer.read_message = counted
        # The reader is inside of the old one: this wakes it.
        self.send(bytes([SERVICE_REQUEST]) + string(b"ssh-userauth"))
        deadline = time.monotonic() + PATIENCE
        while not self.transport.packetizer.read_message is counted and time.monotonic() < deadline:
            pass

    def send(self, payload):
        message = Message(payload)
        self.transport._send_message(message)

    def wait(self, *kinds, count=1, patience=PATIENCE):
        """Whether so many messages of these kinds have come, in time and before the end."""
        deadline = time.monotonic() + patience
        with self.changed:
            while sum(self.seen.get(kind, 0) for kind in kinds) < count:
                if not self.transport.is_active() or time.monotonic() > deadline:
                    return False
                self.changed.wait(0.05)
        return True

    def ended(self, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while self.transport.is_active() and time.monotonic() < deadline:
            time.sleep(0.01)
        return not self.transport.is_active()

    def request(self, user, algorithm, blob, signature=None):
        proof = b"\0" if signature is None else b"\1"
        body = bytes([USERAUTH_REQUEST]) + string(user) + string(b"ssh-connection") + string(b"publickey")
        body += proof + string(algorithm) + string(blob)
        return body if signature is None else body + string(signature)

    def signed(self, user, algorithm, blob, key, session=None):
        """What a signature must cover."""
        data = string(session or self.transport.session_id) + self.request(user, algorithm, blob, b"")[:-4]
        return key.sign_ssh_data(data).asbytes()

    def authenticate(self, user, key, blob):
        self.send(self.request(user, CERTIFICATE, blob, self.signed(user, CERTIFICATE, blob, key)))
        if not self.wait(52):
            sys.exit("not let in")

    def open(self, number=0, window=2**21):
        self.send(bytes([CHANNEL_OPEN]) + string(b"session") + struct.pack(">III", number, window, 32768))

    def channel(self, number=0, window=2**21):
        """Opens a channel; gives its number at the server's."""
        self.open(number, window)
        if not self.wait(OPEN_CONFIRMATION):
            sys.exit("not opened")
        return struct.unpack(">I", self.last[OPEN_CONFIRMATION][4:8])[0]

    def ask(self, channel, kind, payload=b"", reply=True):
        head = bytes([CHANNEL_REQUEST]) + struct.pack(">I", channel) + string(kind)
        self.send(head + (b"\1" if reply else b"\0") + payload)


def nested(key, blob, victim):
    """A certificate for `victim` whose authority is somebody's own certificate."""
    fresh = os.urandom(32)
    public = key.asbytes()[-32:]
    body = string(CERTIFICATE) + string(fresh) + string(public) + struct.pack(">QI", 7, 1)
    body += string(b"id") + string(string(victim)) + struct.pack(">QQ", 0, 2**63)
    body += string(b"") + string(b"") + string(b"") + string(blob)
    return body + string(key.sign_ssh_data(body).asbytes())


def proofs(peer, what, user, key, blob):
    """Attempts to be taken for somebody; after each, something that only a known client may do."""
    plain = key.asbytes()
    if what == "offer":
        peer.send(peer.request(user, b"ssh-ed25519", plain))
        peer.wait(60)
    elif what == "offered certificate":
        peer.send(peer.request(user, CERTIFICATE, blob))
        peer.wait(60, 51)
    elif what == "other data":
        peer.send(peer.request(user, CERTIFICATE, blob, peer.signed(b"erin", CERTIFICATE, blob, key)))
    elif what == "other session":
        signature = peer.signed(user, CERTIFICATE, blob, key, session=b"s" * 32)
        peer.send(peer.request(user, CERTIFICATE, blob, signature))
    elif what == "other key":
        other = paramiko.Ed25519Key.from_private_key_file(os.environ["OTHER_KEY"])
        peer.send(peer.request(user, CERTIFICATE, blob, peer.signed(user, CERTIFICATE, blob, other)))
    elif what == "nested":
        forged = nested(key, blob, user)
        peer.send(peer.request(user, CERTIFICATE, forged, peer.signed(user, CERTIFICATE, forged, key)))
    elif what == "nothing":
        pass
    peer.open()
    peer.send(bytes([GLOBAL_REQUEST]) + string(b"tcpip-forward") + b"\1" + string(b"127.0.0.1") + struct.pack(">I", 0))
    peer.send(bytes([CHANNEL_DATA]) + struct.pack(">I", 0) + string(b"x"))
    # Answered in order: what came before has been looked at.
    peer.send(peer.request(user, b"ssh-ed25519", b"no key at all", b"nor a signature"))
    peer.ended(2)


def floods(peer, what, count):
    if what == "opens":
        for number in range(count):
            peer.open(number)
        peer.wait(OPEN_CONFIRMATION, OPEN_FAILURE, count=count)
    elif what == "other opens":
        for number in range(count):
            peer.send(bytes([CHANNEL_OPEN]) + string(b"x11") + struct.pack(">III", number, 1, 1) + string(b"h") + bytes(4))
        peer.wait(OPEN_FAILURE, count=count)
    elif what == "requests":
        channel = peer.channel()
        for number in range(count):
            peer.ask(channel, b"env", string(b"LANG") + string(b"%d" % number), reply=False)
        peer.ask(channel, b"exec", string(b"echo done"))
        peer.wait(CHANNEL_DATA)
    elif what == "answered requests":
        channel = peer.channel()
        for number in range(count):
            peer.ask(channel, b"window-change", struct.pack(">IIII", 80, 24, 0, 0), reply=True)
        for number in range(count):
            peer.send(bytes([GLOBAL_REQUEST]) + string(b"no such thing") + b"\1")
        peer.wait(82, count=count)
    elif what == "window":
        channel = peer.channel()
        peer.ask(channel, b"exec", string(b"exec cat"))
        peer.wait(99)
        for _ in range(count):
            peer.send(bytes([WINDOW_ADJUST]) + struct.pack(">II", channel, 0xFFFFFFFF))
        peer.send(bytes([CHANNEL_DATA]) + struct.pack(">I", channel) + string(b"still here"))
        peer.wait(CHANNEL_DATA)
    elif what == "beyond":
        channel = peer.channel()
        peer.ask(channel, b"exec", string(b"exec sleep 1000"))
        peer.wait(99)
        block = bytes([CHANNEL_DATA]) + struct.pack(">I", channel) + string(b"x" * 32000)
        try:
            for _ in range(count):
                peer.send(block)
        except (OSError, EOFError):
            pass
        peer.ended(2)
    elif what == "nowhere":
        for number in range(count):
            peer.send(bytes([CHANNEL_DATA]) + struct.pack(">I", 7000 + number) + string(b"x"))
            peer.ask(7000 + number, b"exec", string(b"id"))
            peer.send(bytes([WINDOW_ADJUST]) + struct.pack(">II", 7000 + number, 1))
        peer.ended(2)
    elif what == "kexinit":
        for _ in range(count):
            peer.send(bytes([KEXINIT]) + os.urandom(16) + string(b"none") * 10 + bytes(5))
        peer.ended(5)


def main():
    parser = argparse.ArgumentParser()
    for name in ["port", "user", "key", "group", "what", "count"]:
        parser.add_argument(name)
    given = parser.parse_args()
    key = paramiko.Ed25519Key.from_private_key_file(given.key)
    with open(given.key + "-cert.pub", encoding="ascii") as file:
        blob = base64.b64decode(file.read().split()[1])
    peer, user = Peer(int(given.port)), given.user.encode()
    try:
        if given.group == "proofs":
            proofs(peer, given.what, user, key, blob)
        else:
            peer.authenticate(user, key, blob)
            floods(peer, given.what, int(given.count))
    except (OSError, EOFError, paramiko.SSHException) as error:
        print("broken:", error)
        peer.ended()
    for kind, count in sorted(peer.seen.items()):
        print(f"message {kind}: {count}")
    print("alive" if peer.transport.is_active() else "closed")
    peer.transport.close()


main()
