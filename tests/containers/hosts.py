"""Hosts on one machine: network namespaces on a bridge. What each of them says of its own accord is seen."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from containers.tools import Failure, run

_EVERYTHING = 0x0003  # ETH_P_ALL
_NETWORK = "10.77.0."
GATEWAY = f"{_NETWORK}1"


def enter() -> None:
    """Moves this process, and all that it starts from now on, into a network and a mount namespace of its own: what is
    made in them is gone with it. Call it before there are threads. Raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    new_net, new_mount = 0x40000000, 0x00020000
    if libc.unshare(new_net | new_mount) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no namespaces: {os.strerror(code)}")
    run("mount", "--make-rprivate", "/")
    Path("/run/netns").mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    run("mount", "--make-shared", "/run/netns")


class Network:
    """A bridge, with this process at GATEWAY. Call `enter` before."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "lan", "type", "bridge")
        run("ip", "address", "add", f"{GATEWAY}/24", "dev", "lan")
        run("ip", "link", "set", "lan", "up")

    def host(self, name: str) -> Host:
        """A new host."""
        made = Host(name, f"{_NETWORK}{len(self.hosts) + 10}", len(self.hosts))
        self.hosts.append(made)
        return made

    def names(self) -> str:
        """The text of /etc/hosts."""
        return "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in self.hosts)


class Host:
    """One host, with its own addresses, ports and loopback."""

    def __init__(self, name: str, address: str, number: int) -> None:
        self.name = name
        self.address = address
        self.port_name = f"port{number}"
        run("ip", "netns", "add", name)
        run("ip", "link", "add", self.port_name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", self.port_name, "master", "lan", "up")
        for words in (
            "ip link set lo up",
            f"ip address add {address}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {GATEWAY}",
        ):
            run(*self.inside(*words.split()))

    def inside(self, *command: str) -> list[str]:
        """The command that runs a command on this host."""
        return ["ip", "netns", "exec", self.name, *command]


class Watch:
    """Sees what a host says of its own accord: every TCP connection that it opens, and every datagram."""

    def __init__(self, host: Host) -> None:
        self._source = socket.inet_aton(host.address)
        self._seen: dict[str, None] = {}
        self._stop = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
        self._socket.bind((host.port_name, 0))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def taken(self) -> list[str]:
        """What was seen since the last call."""
        seen = list(self._seen)
        self._seen.clear()
        return seen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            if select.select([self._socket], [], [], 0.2)[0]:
                what = _said(self._socket.recv(65536)[14:], self._source)
                if what:
                    self._seen[what] = None


def _said(packet: bytes, source: bytes) -> str:
    """A description of an IPv4 packet that the host with this address began, "" for every other packet."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[12:16] != source:
        return ""
    place, body = socket.inet_ntoa(packet[16:20]), packet[(packet[0] & 15) * 4 :]
    if packet[9] == socket.IPPROTO_UDP and len(body) >= 8:
        port = struct.unpack("!H", body[2:4])[0]
        name = b".".join(re.findall(rb"[\w-]{2,}", body[20:])).decode() if port == 53 else ""
        return f"udp {place}:{port} {name}".strip()
    if packet[9] == socket.IPPROTO_TCP and len(body) >= 20 and body[13] & 0x12 == 0x02:
        return f"tcp {place}:{struct.unpack('!H', body[2:4])[0]}"
    return ""


def prove(host: Host) -> None:
    """Raises Failure if a process of this host that asks a name server is not seen."""
    ask = "import socket\ntry: socket.getaddrinfo('telemetry.example.com', 443)\nexcept OSError: pass\n"
    with Watch(host) as watch:
        names = Path("/etc/resolv.conf")
        import tempfile

        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(f"nameserver {GATEWAY}\noptions timeout:1 attempts:1\n")
            file.flush()
            script = f'mount --bind {file.name} {names.resolve()} && exec python3 -c "{ask}"'
            run(*host.inside("unshare", "--mount", "sh", "-c", script), limit=60)
        seen = watch.taken()
    if not any(":53" in what for what in seen):
        raise Failure(f"the watch did not see a process that asks a name server: {seen or 'nothing'}")
