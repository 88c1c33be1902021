"""What is open for long while the proxy changes under it: an answer that takes its time, and a WebSocket."""

import base64
import http.client
import os
import socket
import threading
import time

from machine import PATIENCE_SECONDS, PROXY, Failed


class LongAnswer:
    """One request; its answer comes in pieces, a tenth of a second apart."""

    def __init__(self, n_pieces: int) -> None:
        self._n_pieces, self._came, self._error = n_pieces, b"", ""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def ends(self) -> int:
        """The pieces that came: all of them."""
        self._thread.join(self._n_pieces / 10 + PATIENCE_SECONDS)
        came = self._came.count(b"chunk ")
        if self._error or came != self._n_pieces:
            raise Failed(f"an answer ended after {came} of {self._n_pieces} pieces: {self._error or 'too early'}")
        return came

    def _ask(self) -> None:
        try:
            connection = http.client.HTTPConnection(PROXY, timeout=PATIENCE_SECONDS)
            connection.request("GET", f"/stream?chunks={self._n_pieces}&ms=100")
            self._came = connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            self._error = repr(error)


class WebSocket:
    """Says something ten times a second and waits until it comes back (RFC 6455; short texts only)."""

    def __init__(self) -> None:
        host, port = PROXY.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {PROXY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._reader = self._socket.makefile("rb")
        head = [self._reader.readline()]
        while head[-1] not in (b"\r\n", b""):
            head.append(self._reader.readline())
        if b" 101 " not in head[0]:
            raise Failed(f"no WebSocket: {head}")
        self._n_echoes, self._error, self._is_over = 0, "", threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()

    def ends(self) -> int:
        """The texts that came back: every one."""
        self._is_over.set()
        self._thread.join(PATIENCE_SECONDS)
        # Closed once both are.
        self._reader.close()
        self._socket.close()
        if self._error or not self._n_echoes:
            raise Failed(f"a WebSocket broke after {self._n_echoes} texts: {self._error}")
        return self._n_echoes

    def breaks(self) -> None:
        """It was to."""
        self._thread.join(PATIENCE_SECONDS)
        self._reader.close()
        self._socket.close()
        if not self._error:
            raise Failed(f"a WebSocket outlived its proxy: {self._n_echoes} texts")

    def _talk(self) -> None:
        try:
            while not self._is_over.is_set():
                said = f"text {self._n_echoes}".encode()
                mask = os.urandom(4)
                masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(said))
                self._socket.sendall(bytes([0x81, 0x80 | len(said)]) + mask + masked)
                heard = self._reader.read(2 + len(said))
                if heard != bytes([0x81, len(said)]) + said:
                    self._error = f"{said!r} came back as {heard!r}"
                    return
                self._n_echoes += 1
                time.sleep(0.1)
        except OSError as error:
            self._error = repr(error)
