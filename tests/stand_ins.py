"""Endpoints that stand in for models elsewhere and do what no endpoint should."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HANG = 600


class Endpoint:
    """A language model and a recognizer behind an OpenAI-compatible address. `mood` says how it behaves next."""

    def __init__(self):
        endpoint = self
        self.mood = "well"
        self.asked = 0
        self.released = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.whole({"object": "list", "data": [{"id": "stand-in", "object": "model"}]})

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                endpoint.asked += 1
                mood = endpoint.mood
                if mood == "hangs":
                    endpoint.released.wait(HANG)
                    self.close_connection = True
                elif mood == "closes":
                    self.close_connection = True
                elif mood == "fails":
                    self.whole({"error": {"message": "out of memory"}}, 500)
                elif mood == "web page":
                    self.plain(b"<html><body>Gateway</body></html>", "text/html")
                elif mood == "garbage":
                    self.plain(bytes(range(256)) * 64, "text/event-stream")
                elif mood == "endless":
                    self.endless()
                elif self.path.endswith("/audio/transcriptions"):
                    self.whole({"text": "What is the time, please?"})
                else:
                    self.stream(mood)

            def whole(self, answer, status=200):
                self.plain(json.dumps(answer).encode(), "application/json", status)

            def plain(self, body, kind, status=200):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def chunk(self, data):
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()

            def begin(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()

            def event(self, delta, finish=None):
                event = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
                self.chunk(f"data: {json.dumps(event)}\n\n".encode())

            def stream(self, mood):
                self.begin()
                self.event({"role": "assistant", "content": "It is noon now. "})
                if mood == "hangs midway":
                    endpoint.released.wait(HANG)
                    self.close_connection = True
                    return
                if mood == "closes midway":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.event({"content": "The bell has just rung."})
                self.event({}, "stop")
                self.chunk(b"data: [DONE]\n\n")
                self.chunk(b"")

            def endless(self):
                self.begin()
                try:
                    while True:
                        self.chunk(b"a" * 65_536)
                except OSError:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def options(self):
        return ["--llm-url", self.url, "--llm-model", "stand-in"]

    def ears(self):
        return ["--asr-url", self.url, "--asr", "stand-in"]

    def stop(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
