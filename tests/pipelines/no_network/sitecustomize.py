"""Put on PYTHONPATH, refuses every socket but local ones, and every look-up of a host's address."""

import socket
from typing import Any


class _LocalSocket(socket.socket):
    def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
        if family != socket.AF_UNIX:
            raise OSError("no network here: a socket was opened")
        super().__init__(family, *arguments, **options)


def _refuse(*arguments: Any, **options: Any) -> Any:
    raise OSError("no network here: an address was looked up")


socket.socket = _LocalSocket  # type: ignore[misc]
socket.getaddrinfo = _refuse
socket.gethostbyname = _refuse
