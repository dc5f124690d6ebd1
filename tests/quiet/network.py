"""A network namespace in which everything that is sent is seen: a sniffer, a name server, a TLS port."""

from __future__ import annotations

import ipaddress
import re
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

_EVERYTHING = 0x0003  # ETH_P_ALL
_IPV4, _IPV6 = 0x0800, 0x86DD
_UDP, _TCP = 17, 6
_SINK = "192.0.2.1"  # the address with which the name server answers
_MARKER = "198.51.100.9"
_PROTOCOLS = {_UDP: "udp", _TCP: "tcp"}


class NetworkError(Exception):
    """The network cannot be set up. The message has the reason."""


class Network:
    """Makes every address this machine's and watches. Use it inside a fresh network namespace; one at a time."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._seen: dict[str, None] = {}
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for command in (
            "ip link set lo up",
            "ip route add local 0.0.0.0/0 dev lo",
            "ip -6 route add local ::/0 dev lo",
        ):
            done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
            if done.returncode and "-6" not in command:
                raise NetworkError(f"{command}: {done.stderr.strip()}")
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERYTHING))
        sniffer.bind(("lo", 0))
        self._watch(sniffer, self._sniffed)
        for server in _name_servers():
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            names = socket.socket(family, socket.SOCK_DGRAM)
            names.bind((server, 53))
            self._watch(names, self._asked)
        for port in (80, 443):
            sink = socket.create_server(("0.0.0.0", port))
            self._watch(sink, self._called)
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def taken(self) -> list[str]:
        """What was seen since the last call, each kind once. What was sent before this call is in it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:  # packets are seen in order: wait for our own
            marker.sendto(b"", (_MARKER, 9))
        found = threading.Event()
        while not found.wait(0.02):
            with self._lock:
                if (marker_seen := f"udp {_MARKER}:9") in self._seen:
                    seen = [what for what in self._seen if what != marker_seen]
                    self._seen.clear()
                    return seen
        return []

    def _note(self, what: str) -> None:
        with self._lock:
            self._seen[what] = None

    def _watch(self, sock: socket.socket, ready: Callable[[socket.socket], None]) -> None:
        self._sockets.append(sock)

        def loop() -> None:
            while not self._stop.is_set():
                if select.select([sock], [], [], 0.2)[0]:
                    ready(sock)

        thread = threading.Thread(target=loop, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _sniffed(self, sock: socket.socket) -> None:
        packet, (_, protocol, *_) = sock.recvfrom(256)
        if protocol == _IPV4:
            length, kind = (packet[0] & 15) * 4, packet[9]
            to = ipaddress.ip_address(packet[16:20])
            sender = ipaddress.ip_address(packet[12:16])
        elif protocol == _IPV6:
            length, kind = 40, packet[6]
            to, sender = ipaddress.ip_address(packet[24:40]), ipaddress.ip_address(packet[8:24])
        else:
            return
        port = int.from_bytes(packet[length + 2 : length + 4], "big") if kind in _PROTOCOLS else 0
        if port == 53:
            self._note(f"DNS to {to}")
        elif str(to) == _MARKER and port != 9:
            pass  # nobody listens to the marker, which the kernel says
        elif not to.is_loopback and not sender.is_unspecified:
            if sender == to and int.from_bytes(packet[length : length + 2], "big") in (80, 443, 53):
                return  # an answer of a sink
            self._note(f"{_PROTOCOLS.get(kind, kind)} {to}:{port}")

    def _asked(self, sock: socket.socket) -> None:
        question, sender = sock.recvfrom(512)
        labels = re.findall(rb"[\w-]+", question[12:80])
        self._note(f"DNS question {b'.'.join(labels).decode(errors='replace')}")
        end = question.index(b"\0", 12) + 5
        answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + socket.inet_aton(_SINK)
        wanted = question[end - 4 : end - 2] == b"\x00\x01"  # an A record
        head = question[:2] + b"\x81\x80\x00\x01" + (b"\x00\x01" if wanted else b"\x00\x00") + bytes(4)
        sock.sendto(head + question[12:end] + (answer if wanted else b""), sender)

    def _called(self, sock: socket.socket) -> None:
        connection, (host, *_) = sock.accept()
        connection.close()
        self._note(f"a call from {host} at :{sock.getsockname()[1]}")


def _name_servers() -> list[str]:
    text = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    found = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE)
    return list(dict.fromkeys(each.partition("%")[0] for each in found)) or ["127.0.0.1"]
