"""A TCP relay between clients and a server on this machine, and what can go wrong on the way."""

import socket
import threading
import time


class Relay:
    """Connections to `port`, through a port of its own."""

    def __init__(self, port):
        self.to = port
        # Seconds for which each piece is held up.
        self.delay = 0.0
        # Forwards nothing at all, while both ends think that they are connected.
        self.silent = False
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def asked(self, data):
        """What a client sent first; for those who want to look at it."""

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            self.pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far, self.asked), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near), daemon=True).start()

    def _carry(self, source, sink, look=None):
        try:
            while data := source.recv(65_536):
                if look is not None:
                    look(data)
                    look = None
                time.sleep(self.delay)
                if not self.silent:
                    sink.sendall(data)
        except OSError:
            pass
        if not self.silent:
            _shut(source, sink)

    def cut(self):
        """Breaks all connections; new ones can be made."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            _shut(*pair)

    def stop(self):
        self.listener.close()
        self.cut()


def _shut(*ends):
    for one in ends:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
