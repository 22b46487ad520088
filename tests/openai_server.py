"""A server for the tests of `moeprism loadgen`: OpenAI's protocol, scripted by max_tokens.

Listens on a free port of 127.0.0.1, prints the port, and appends every request's body to the file it is given.
max_tokens: 503 refuses, 400 answers with an error, 13 breaks off in the middle, 14 sends an error as an event,
66 claims to have run below the floor, 67 does not account for the floor; all others are served, the bytes of the stream
in small pieces, a token a millisecond.
"""
import http.server
import json
import sys
import threading
import time

LOCK = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": "scripted-model"}]})
        else:
            self.answer(404, {"error": {"message": "no such page"}})

    def event(self, value):
        data = value if isinstance(value, str) else json.dumps(value)
        text = (f": heartbeat\n\ndata: {data}\n\n").encode()
        for i in range(0, len(text), 7):
            self.wfile.write(text[i : i + 7])
            self.wfile.flush()

    def piece(self, text, reason=None):
        if "chat" in self.path:
            self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]})
        else:
            self.event({"choices": [{"index": 0, "text": text, "finish_reason": reason}]})

    def usage(self, request):
        n = request["max_tokens"]
        usage = {"prompt_tokens": len(request.get("prompt", [])) or 5, "completion_tokens": n}
        if n != 67:
            floor = request.get("moeprism", {}).get("min_compute", 1)
            usage["moeprism"] = {
                "compute_share": 0.75,
                "compute_floor": floor,
                "points": [0, 4 if n == 66 else 3],
                "floor_point": 3,
                "ppl_increase": 0.01,
                "ppl_increase_floor": 0.02,
            }
        return usage

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request["path"] = self.path
        request["authorization"] = self.headers.get("Authorization")
        with LOCK, open(sys.argv[1], "a", encoding="utf-8") as log:
            log.write(json.dumps(request) + "\n")
        n = request["max_tokens"]
        if n == 503:
            return self.answer(503, {"error": {"message": "the queue is full"}}, [("Retry-After", "1")])
        if n == 400:
            return self.answer(400, {"error": {"message": "max_tokens is silly"}})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if "chat" in self.path:
            self.event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
        time.sleep(0.02)
        for i in range(n):
            self.piece(" word" if i > 0 else " w\0rd")
            time.sleep(0.001)
            if n == 13 and i == 3:
                return None
            if n == 14:
                return self.event({"error": {"message": "the model fell over"}})
        self.piece("", "length")
        self.event({"choices": [], "usage": self.usage(request)})
        return self.event("[DONE]")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
print(server.server_port, flush=True)
server.serve_forever()
