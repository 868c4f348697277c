#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""delay.py LISTEN PORT MS: passes connections to LISTEN on loopback on to PORT; all that goes through,
either way, comes out MS milliseconds later, however much of it there is."""
import collections
import selectors
import socket
import sys
import time

PIECE = 1 << 18
MOST = 64 << 20  # under way in one direction


class Way:
    """One direction of a connection."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.queue, self.held, self.ended = collections.deque(), 0, False

    def take(self, due):
        try:
            data = self.source.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.ended = not data
        self.held += len(data)
        self.queue.append((due, memoryview(data)))

    def give(self, now):
        """Passes on what is due; whether the end came through."""
        while self.queue and self.queue[0][0] <= now:
            due, data = self.queue[0]
            if not data:
                return True
            try:
                n = self.target.send(data)
            except BlockingIOError:
                return False
            except OSError:
                return True
            self.held -= n
            self.queue[0] = (due, data[n:])
            if n == len(data):
                self.queue.popleft()
        return False


def main(listen, port, delay):
    server = socket.create_server(("127.0.0.1", listen))
    server.setblocking(False)
    ways = []
    while True:
        selector = selectors.DefaultSelector()
        selector.register(server, selectors.EVENT_READ)
        for way in ways:
            if not way.ended and way.held < MOST:
                selector.register(way.source, selectors.EVENT_READ, way)
        due = min((way.queue[0][0] for way in ways if way.queue), default=None)
        wait = None if due is None else max(0.0005, due - time.monotonic())
        ready = selector.select(wait)
        selector.close()
        now = time.monotonic()
        for key, _ in ready:
            if key.data:
                key.data.take(now + delay)
                continue
            client, _ = server.accept()
            there = socket.create_connection(("127.0.0.1", port))
            for s in (client, there):
                s.setblocking(False)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways += [Way(client, there), Way(there, client)]
        over = {s for way in ways if way.give(now) for s in (way.source, way.target)}
        for s in over:
            s.close()
        ways = [way for way in ways if way.source not in over]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) / 1000)
