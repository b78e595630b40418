"""A TCP proxy of a test's own, in front of a server: it cuts connections, and calls back, at a word of the client."""

import contextlib
import socket
import threading


class Proxy:
    """
    Passes everything on to ``target``, a pair of host and port, until a client sends ``word``.

    Then, once, it calls ``action`` and cuts the connection: before the word reaches the server or, with ``after``, when
    the server has answered it and the client has not heard. ``sent`` is all that clients have sent.
    """

    def __init__(self, target, word=None, action=lambda: None, *, after=False):
        self.target = target
        self.word = word
        self.action = action
        self.after = after
        self.sent = b""
        self._idle = threading.Event()
        self._idle.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._idle.wait(60)
        # A listener that is only closed goes on waiting in the other thread.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, socket.create_connection(self.target) as server:
            answered = threading.Event()
            cut = threading.Event()
            threading.Thread(target=self._answer, args=(server, client, answered, cut), daemon=True).start()
            while data := client.recv(65536):
                self.sent += data
                if self.word is None or self.word not in data:
                    server.sendall(data)
                    continue
                self.word = None
                self._idle.clear()
                if self.after:
                    cut.set()
                    answered.clear()
                    server.sendall(data)
                    answered.wait(30)
                self.action()
                self._idle.set()
                return

    @staticmethod
    def _answer(server, client, answered, cut):
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if cut.is_set():
                    answered.set()
                    return
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
