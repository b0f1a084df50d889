"""A handler for what the edge delivers: each notification goes into a file, and then gets its 200."""

import os, re, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def keep(body):
    file = os.open(os.environ.get("FILE", "notifications.jsonl"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if os.fstat(file).st_size + len(body) > int(os.environ.get("MAX_BYTES", 64 << 20)):
            raise OSError("full: move the file away and work on it")
        # A line end on both sides: a line that a full disk cut short spoils no other one.
        line = b"\n" + re.sub(rb"[\r\n]+", b" ", body) + b"\n"
        if os.write(file, line) < len(line):
            raise OSError("disk full")
        os.fsync(file)
    finally:
        os.close(file)


class Handler(BaseHTTPRequestHandler):
    timeout = 60

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # the edge broke off, and asks again
        try:
            keep(body)
            self.send_response(200)
        except OSError as problem:  # not now: the edge asks another handler, or this one again
            print(problem, file=sys.stderr)
            self.send_response(503)
            self.send_header("Retry-After", "5")
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer.daemon_threads = False  # server_close waits for what is in hand
ThreadingHTTPServer.request_queue_size = 128
host, port = os.environ.get("ADDRESS", "127.0.0.1:9001").split(":")
server = ThreadingHTTPServer((host, int(port)), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.05)
server.server_close()
