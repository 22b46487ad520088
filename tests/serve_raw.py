"""What clients do to a server that no well-behaved client does, over plain sockets; and many of them at once.

serve_raw.py URL PID PROGRAM MODEL [WORD...]: prints TAP, of the tests with one of the words in their names, else of all. The
server has 32 slots and a timeout of 2 s. Nothing here depends on how fast anything is: what must happen is waited for.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

url, pid, program, model, *words = sys.argv[1:]
port = int(url.rsplit(":", 1)[1])
tests = []


def test(function):
    tests.append(function)
    return function


def connect():
    return socket.create_connection(("127.0.0.1", port))


def request(body, path="/v1/completions", more=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n{more}\r\n"
    return head.encode() + data


def read_all(sock):
    """Everything until the server closes; a reset is an end, too."""
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionError:
        pass
    return data


def ask(data):
    """Status and body of one exchange."""
    with connect() as sock:
        try:
            sock.sendall(data)
        except ConnectionError:
            pass  # refused before it had all
        reply = read_all(sock)
    head, _, body = reply.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


CLOSE = "Connection: close\r\n"


def complete(body):
    status, reply = ask(request(body, more=CLOSE))
    assert status == 200, (status, reply)
    return json.loads(reply)


def health():
    return json.loads(ask(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")[1])


def until_idle():
    while (state := health())["running"] + state["waiting"] > 0:
        pass


LONG = {"prompt": "The old", "max_tokens": 250, "ignore_eos": True, "temperature": 0}


@test
def a_request_byte_by_byte():
    with connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request({"prompt": "x", "max_tokens": 2}, more=CLOSE):
            sock.send(bytes([byte]))
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


@test
def two_requests_in_one_write():
    with connect() as sock:
        body = {"prompt": "x", "max_tokens": 2}
        sock.sendall(request(body) + request(body, more=CLOSE))
        assert read_all(sock).count(b"HTTP/1.1 200 ") == 2


@test
def half_closed_in_the_header_in_the_body_and_behind_it():
    whole = request({"prompt": "x", "max_tokens": 2})
    for part in (whole[:10], whole[:-5], whole):
        with connect() as sock:
            sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)  # ends
    until_idle()
    with connect() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


@test
def what_is_no_http():
    for junk in (b"\x00" * 100, b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                 b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                 b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
        with connect() as sock:
            sock.sendall(junk)
            sock.shutdown(socket.SHUT_WR)
            assert b"HTTP/1.1 200" not in read_all(sock), junk
    assert health()["status"] == "ok"


@test
def headers_that_are_too_large():
    for size in (20000, 60000, 100000, 1000000):
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * size + b"\r\n\r\n"
        with connect() as sock:
            try:
                sock.sendall(head)
            except ConnectionError:
                pass
            reply = read_first(sock)
            assert reply.startswith(b"HTTP/1.1 431 "), size
            if size < 64000:
                error = json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
                assert error["code"] == "header_too_large" and str(size + 46) in error["message"], reply


def read_first(sock, most=65536):
    """The reply as far as it arrives before the connection is reset."""
    try:
        return sock.recv(most)
    except ConnectionError:
        return b""


@test
def bodies_that_are_too_large():
    limit = 8 << 20
    status, body = ask(request(b"{" + b" " * limit, more=CLOSE))
    assert status == 413 and b"body_too_large" in body, (status, body)
    with connect() as sock:  # asks first
        sock.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {9 * limit}\r\n"
                     "Expect: 100-continue\r\n\r\n".encode())
        assert read_first(sock).startswith(b"HTTP/1.1 413 ")
    with connect() as sock:  # does not say how large
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(9):
            sock.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        assert read_first(sock).startswith(b"HTTP/1.1 413 ")


@test
def deep_and_huge_json():
    for body in (b'{"prompt":' + b"[" * 1000000, b'{"prompt":[' + b"[]," * 1000000 + b"[]]}",
                 b'{"prompt":"\xff\xfe"}', b'{"prompt":"x","temperature":1e999}', b'{"prompt":"x","seed":' + b"9" * 1000 + b"}"):
        status, reply = ask(request(body, more=CLOSE))
        assert status == 400 and json.loads(reply)["error"]["message"], (body[:30], status)


@test
def a_client_that_trickles_is_cut_off():
    with connect() as loris, connect() as idle:
        loris.sendall(b"GET /health HTTP/1.1\r\n")
        closed = threading.Event()

        def trickle():
            try:
                while not closed.wait(0.1):
                    loris.sendall(b"X: y\r\n")
            except ConnectionError:
                pass

        thread = threading.Thread(target=trickle)
        thread.start()
        read_all(loris)  # ends only when the server closes
        closed.set()
        thread.join()
        assert read_all(idle) == b""


def metric(name):
    reply = ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")[1].decode()
    return int(next(line for line in reply.split("\n") if line.startswith(f"moeprism_{name} ")).split()[1])


def generated():
    return metric('tokens_total{kind="generated"}')


SLOTS = 32
ROUNDS = int(os.environ.get("SERVE_ROUNDS", "15"))


def leave(stream, rounds, goodbye=lambda sock: None):
    """Clients leave in the middle of their replies; little of what they asked for is then generated. The bound is on all rounds
    together: in one of them the machine may be busy with something else."""
    until_idle()
    first = generated()
    for _ in range(rounds):
        before = generated()
        socks = [connect() for _ in range(SLOTS)]
        for sock in socks:
            sock.sendall(request({**LONG, "stream": stream}))
        if stream:
            for sock in socks:
                read_until(sock, b"data: ")
        while generated() - before < SLOTS:
            pass
        for sock in socks:
            goodbye(sock)
            sock.close()
        until_idle()
    tokens, wanted = generated() - first, rounds * SLOTS * LONG["max_tokens"]
    print(f"# {rounds * SLOTS} clients left: {tokens} of {wanted} tokens were generated")
    assert tokens < wanted / 5, (tokens, wanted)


def read_until(sock, part):
    data = b""
    while part not in data:
        more = sock.recv(4096)
        assert more, data
        data += more


@test
def clients_that_leave_a_stream_free_their_slots():
    leave(True, ROUNDS)


@test
def clients_that_leave_while_they_wait_free_their_slots():
    leave(False, ROUNDS)


@test
def resets_in_the_middle_of_streams():
    leave(True, 2, lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"))


@test
def a_reader_that_trickles_is_cut_off():
    """Its reply has been generated; a stream and a whole one, each more than sockets hold: those of small segments hold little.
    It reads often enough not to seem idle."""
    while metric("connections") > 1:  # of earlier tests; one is the question's own
        pass
    socks = [socket.socket(), socket.socket()]
    for sock, stream in zip(socks, (True, False)):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 268)
        sock.connect(("127.0.0.1", port))
        sock.sendall(request({**LONG, "stream": stream, "logprobs": 20}))
    until_idle()
    started = time.monotonic()
    while metric("connections") > 1:
        assert time.monotonic() - started < 120, "they are still connected"
        for sock in socks:
            read_first(sock, 600)
        time.sleep(0.05)
    for sock in socks:
        reply = read_all(sock)
        assert not reply.endswith((b"[DONE]\n\n\r\n0\r\n\r\n", b"}\n")), reply[-100:]
        sock.close()


@test
def a_slow_reader_gets_all_and_holds_nobody_up():
    slow = connect()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    slow.sendall(request({**LONG, "stream": True, "logprobs": 20}, more=CLOSE))
    others = [complete(LONG)["choices"][0]["text"] for _ in range(2)]  # while nobody reads the first
    until_idle()  # its slot is free although its text has not been read
    events = [json.loads(line[6:]) for line in body_lines(read_all(slow)) if line.startswith("data: {")]
    slow.close()
    assert "".join(event["choices"][0]["text"] for event in events) == others[0] == others[1]


def body_lines(reply):
    """Lines of a chunked body."""
    data, out = reply.partition(b"\r\n\r\n")[2], b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            break
        out += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return out.decode().split("\n")


@test
def a_thousand_idle_connections():
    def resident():
        with open(f"/proc/{pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    before = resident()
    socks = [connect() for _ in range(1000)]
    for sock in socks[:-1]:
        sock.sendall(b"GET /health HTTP/1.1\r\n")
    assert health()["status"] == "ok"
    grown = resident() - before
    for sock in socks:
        sock.close()
    print(f"# 1000 connections take {grown} KiB")
    assert os.environ.get("SANITIZE") or grown < 100000, grown


def run_alone(prompt, tokens, options):
    command = [program, "run", model, "-p", prompt, "-n", str(tokens), "--temp", "0", "--no-display-prompt", *options]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()[:-1]


@test
def greedy_streams_are_what_run_writes_alone_and_among_others():
    TOKENS = 100
    prompts = ["The old lighthouse", "On the", "Water", "She said that"]
    wanted = {}
    for prompt in prompts:
        for point in (0, 2, 3, 5, 6):
            wanted[prompt, point] = run_alone(prompt, TOKENS, ["--point", str(point)])

    def send(prompt, point):
        body = {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "moeprism": {"point": point}, "stream": True}
        sock = connect()
        sock.sendall(request(body, more=CLOSE))
        return sock

    def text_of(sock):
        events = [json.loads(line[6:]) for line in body_lines(read_all(sock)) if line.startswith("data: {")]
        sock.close()
        return "".join(event["choices"][0]["text"] for event in events)

    for key, text in wanted.items():
        assert text_of(send(*key)) == text, key
    keys = (list(wanted) * SLOTS)[:SLOTS]  # one among 31 others, each of them
    socks = [send(*key) for key in keys]
    texts = [None] * SLOTS

    def read(i):
        texts[i] = text_of(socks[i])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(SLOTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, text in zip(keys, texts):
        assert text == wanted[key], key


@test
def many_requests_of_all_kinds():
    """A short soak: SERVE_REQUESTS of them."""
    total = int(os.environ.get("SERVE_REQUESTS", "300"))
    bodies = [
        ("/v1/completions", {"prompt": "The old", "max_tokens": 4}),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 2, "logprobs": 3, "stream": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "n": 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}),
        ("/tokenize", {"content": "The old lighthouse"}),
        ("/v1/completions", {"prompt": 7}),
    ]
    failures = []
    lock = threading.Lock()
    counter = iter(range(total))

    def work():
        while True:
            with lock:
                i = next(counter, None)
            if i is None:
                return
            path, body = bodies[i % len(bodies)]
            status, _ = ask(request(body, path=path, more=CLOSE))
            if status != (400 if body.get("prompt") == 7 else 200):
                failures.append((path, status))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[:5]
    until_idle()


tests = [function for function in tests if not words or any(word in function.__name__ for word in words)]
failed = 0
print(f"1..{len(tests)}")
for number, function in enumerate(tests, 1):
    name = function.__name__.replace("_", " ")
    try:
        function()
        print(f"ok {number} - {name}", flush=True)
    except Exception as error:  # whatever it is, the others still run
        failed += 1
        detail = repr(error).replace("\n", " ")[:500]
        print(f"not ok {number} - {name}\n# {detail}", flush=True)
sys.exit(failed > 0)
