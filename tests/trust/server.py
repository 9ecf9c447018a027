"""`trainer serve` answers every request correctly, whatever its clients do: 64 quick ones, and slow and broken ones.

`wrk` sends most requests and compares each response with those that are possible. Threads of this program are the
clients that behave badly; they check their responses too.
"""

import atexit
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import threading
import time

from support import REPOSITORY, Failure, finish, pixels, png, random_of, require, wait_until, write_idx_folder

# Each case is ten seconds of requests. On two cores these make more than two million.
COUNT = 25
SECONDS = 10
CONNECTIONS = 64
BAD_CLIENTS = 4
TOKEN = "trust-test-token"
IMAGES = 40
# How often the request of each image is among those of the other kinds.
SHARE_OF_IMAGES = 20
SIDE = 28
CLASSES = 10

# Accepted difference of a probability or a distance: sums are rounded differently in batches of other sizes.
TOLERANCE = 1e-5
# Accepted growth of the server's memory, in MB, after its first two cases.
MAX_GROWTH = 40
# Accepted 99th percentile of the latency of single images, in ms, on a machine that does nothing else.
MAX_P99 = 20


class Server:
    def __init__(self, work, expected, requests):
        self.process = work.start("serve", "run", "--listen", "127.0.0.1:0", "--token", TOKEN, "-q",
                                  stderr=(work.folder / "server.log").open("w"))
        atexit.register(self.process.kill)
        line = self.process.stdout.readline().decode()
        match = re.search(r"http://([\d.]+):(\d+)/", line)
        require(match, "the server did not start:", line)
        self.address = (match[1], int(match[2]))
        self.work = work
        self.expected = expected
        self.requests = requests
        self.memory = []
        self.p99 = []

    def megabytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def head(self, method, path, length, headers="", token=TOKEN, host=None):
        host = host or f"{self.address[0]}:{self.address[1]}"
        return (f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Length: {length}\r\n{headers}\r\n").encode()

    def connect(self):
        connection = socket.create_connection(self.address, timeout=40)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request(self, method, path, body=b"", **options):
        """Sends a request, and returns the status and the body of its response."""
        with self.connect() as connection:
            connection.sendall(self.head(method, path, len(body), **options) + body)
            return read_response(connection.makefile("rb"))


def read_response(stream):
    status = stream.readline().split()
    require(len(status) > 1, "no response")
    length = 0
    while (line := stream.readline().strip()):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return int(status[1]), stream.read(length)


# The requests that wrk sends.


def prepare(work):
    require(shutil.which("wrk"), "needs wrk: apt-get install wrk")
    write_idx_folder(work.folder / "idx", 1, train=60, test=30, side=SIDE, classes=CLASSES)
    work.run("--preset", "tiny", "--data", "idx", "--epochs", "3", "--run-name", "run", "-q").success()
    rng = random_of(0)
    images = [pixels(rng, at % CLASSES, SIDE) for at in range(IMAGES)]
    folder = work.folder / "images"
    folder.mkdir()
    for at, image in enumerate(images):
        (folder / f"{at}.png").write_bytes(png(SIDE, image))
    expected = predictions(work, folder, "--raw")
    digits = REPOSITORY / "tests/handwriting"
    pictures = [path for path in sorted(digits.iterdir()) if path.suffix in (".png", ".gif", ".webp")
                and path.stat().st_size < 6000]
    drawn = predictions(work, digits)
    requests = bulk_requests(images, expected, pictures, drawn)
    server = Server(work, expected, requests)
    server.images = images
    # Responses that do not depend on the prediction are those of the quiet server.
    for request in requests:
        status, body = server.request(request["method"], request["path"], request["body"],
                                      token=request.get("token", TOKEN))
        require(status == request["status"], "status", status, "of", request["path"], body)
        require(is_equal(body, request.get("response", body)), "response", body, "expected", request.get("response"))
        request["response"] = body
    server.script = work.folder / "requests.lua"
    server.script.write_text(lua(requests))
    single = [request for request in requests if request["kind"] == "image"]
    server.single_script = work.folder / "images.lua"
    server.single_script.write_text(lua(single))
    return server


def predictions(work, folder, *flags):
    """Returns what `predict` prints for each picture of a folder, as JSON without the path, by file name."""
    lines = work.run("predict", "run", folder, "--json", "-q", *flags).success().stdout.splitlines()
    named = {}
    for line in lines:
        path = json.loads(line)["path"]
        named[pathlib.Path(path).name] = line.replace(json.dumps(path), "PATH", 1)
    return named


def bulk_requests(images, expected, pictures, drawn):
    """Returns requests with their status and, if it is known, their response."""

    def predict(kind, name, body, response):
        return {"kind": kind, "method": "POST", "path": f"/api/predict?name={name}", "body": body, "status": 200,
                "response": response.encode()}

    def answer(at, name):
        return expected[f"{at}.png"].replace("PATH", f'"{name}"')

    def as_json(image):
        return json.dumps(list(image)).encode()

    requests = []
    for at, image in enumerate(images):
        requests += SHARE_OF_IMAGES * [predict("image", f"i{at}", as_json(image), answer(at, f"i{at}"))]
        if at % 4 == 0:
            chosen = range(at, at + 4)
            body = b"[" + b",".join(as_json(images[other]) for other in chosen) + b"]"
            response = "[" + ",".join(answer(other, f"b{at}") for other in chosen) + "]"
            requests.append(predict("batch", f"b{at}", body, response))
    for path in pictures:
        requests.append(predict("picture", path.stem, path.read_bytes(), drawn[path.name].replace("PATH", f'"{path.stem}"')))

    def plain(kind, status, method, path, body=b"", **options):
        requests.append({"kind": kind, "status": status, "method": method, "path": path, "body": body} | options)

    for page in ("/", "/runs", "/web/draw.js", "/openapi.json", "/healthz", "/api/model", "/api/runs/run"):
        plain("page", 200, "GET", page)
    for body in (b"[1,", b"[256]", b"[]", b"[[1],2]", b"[1,2,3]", b"[null]", b'["a"]', b"[" * 300):
        plain("malformed", 400, "POST", "/api/predict", body)
    plain("malformed", 422, "POST", "/api/predict", b"no picture")
    plain("malformed", 400, "POST", "/api/predict?tops=3", b"[1]")
    plain("unknown", 404, "GET", "/api/runs/nothing")
    plain("unknown", 404, "GET", "/api/runs/..%2Frun")
    plain("unknown", 405, "GET", "/api/predict")
    plain("unauthorized", 401, "GET", "/api/model", token="wrong-token")
    return requests


def lua(requests):
    """Returns a script of wrk that sends random requests and compares the responses."""

    def text(data):
        return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'

    lines = [LUA_RESPONSES.replace("TOLERANCE", str(TOLERANCE)), "local requests = {}"]
    for request in requests:
        token = request.get("token", TOKEN)
        lines.append(f"requests[#requests + 1] = {{'{request['method']}', '{request['path']}', "
                     f"'{token}', {text(request['body'])}}}")
        lines.append(f"add_response({text(str(request['status']).encode() + b' ' + request['response'])})")
    lines.append(LUA)
    return "\n".join(lines)


LUA_RESPONSES = """
local responses, numbers_of = {}, {}
local function split(text)
  local numbers = {}
  local rest = text:gsub('"(%a+)":(%d[^,}]*)', function(key, number)
    numbers[#numbers + 1] = tonumber(number)
    return key .. "#"
  end)
  return rest, numbers
end
local function add_response(text)
  local rest, numbers = split(text)
  responses[text] = true
  numbers_of[rest] = numbers
end
local function is_possible(text)
  if responses[text] then return true end
  local rest, numbers = split(text)
  local expected = numbers_of[rest]
  if not expected then return false end
  for at, number in ipairs(numbers) do
    if math.abs(number - expected[at]) > TOLERANCE then return false end
  end
  return true
end
"""

LUA = """
local threads = {}
function setup(thread)
  thread:set("number", #threads + 1)
  threads[#threads + 1] = thread
end
function init(arguments)
  math.randomseed(tonumber(arguments[1]) * 100 + number)
  checked, wrong, example = 0, 0, ""
  for at, request in ipairs(requests) do
    local method, path, token, body = request[1], request[2], request[3], request[4]
    local headers = {["Authorization"] = "Bearer " .. token}
    requests[at] = wrk.format(method, path, headers, body)
  end
end
function request()
  return requests[math.random(#requests)]
end
function response(status, headers, body)
  checked = checked + 1
  if not is_possible(status .. " " .. body) then
    wrong = wrong + 1
    if example == "" then example = status .. " " .. body end
  end
end
function done(summary, latency, all)
  local checked, wrong, example = 0, 0, ""
  for _, thread in ipairs(threads) do
    checked = checked + thread:get("checked")
    wrong = wrong + thread:get("wrong")
    if example == "" then example = thread:get("example") end
  end
  local errors = summary.errors
  print(string.format("RESULT %d %d %d %d", checked, wrong, errors.connect + errors.read + errors.write
    + errors.timeout, latency:percentile(99)))
  if wrong > 0 then print("EXAMPLE " .. example) end
end
"""


def wrk(server, script, seconds, seed, connections=CONNECTIONS):
    """Runs wrk, and returns its number of requests and the 99th percentile of their latency in ms."""
    url = f"http://{server.address[0]}:{server.address[1]}"
    command = ["wrk", "--threads", "2", "--connections", str(connections), "--duration", f"{seconds}s", "--timeout",
               "30s", "--script", str(script), url, "--", str(seed)]
    output = subprocess.run(command, capture_output=True, text=True)
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", output.stdout)
    require(match, "wrk failed:", output.stdout, output.stderr)
    checked, wrong, errors, p99 = map(int, match.groups())
    require(wrong == 0 and errors == 0, f"{wrong} of {checked} responses are wrong, {errors} errors:", output.stdout)
    return checked, p99 / 1000


def case(server, seed):
    """Sends requests of all kinds for some seconds, then single images only, to measure their latency."""
    is_quiet = os.getloadavg()[0] < 0.3 * os.cpu_count()
    end = time.monotonic() + SECONDS
    counts, failures = {}, []
    threads = [threading.Thread(target=behave_badly, args=(server, random_of(f"{seed} {number}"), end, counts, failures))
               for number in range(BAD_CLIENTS)]
    for thread in threads:
        thread.start()
    requests, _ = wrk(server, server.script, SECONDS, seed)
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    images, p99 = wrk(server, server.single_script, 3, seed)
    server.p99.append(p99)
    require(not is_quiet or p99 < MAX_P99, f"latency of single images: 99% below {p99:.1f} ms, expected {MAX_P99} ms")
    require(server.process.poll() is None, "the server ended:", (server.work.folder / "server.log").read_text())
    server.memory.append(server.megabytes())
    return {"requests": requests + images + sum(counts.values()), "requests of bad clients": sum(counts.values())} | {
        f"requests ({kind})": count for kind, count in counts.items()}


def summary(server):
    """Stops the server, and checks its memory."""
    wait_until(lambda: connections(server) == 1, "end of all connections", limit=40)
    server.process.send_signal(signal.SIGINT)
    output = finish(server.process)
    log = (server.work.folder / "server.log").read_text()
    memory = ", ".join(f"{megabytes:.0f}" for megabytes in server.memory)
    print(f"server: memory after each case in MB: {memory}; highest {output.megabytes:.0f}")
    print(f"server: 99% of single images from {CONNECTIONS} clients below, in ms: "
          + ", ".join(f"{p99:.1f}" for p99 in server.p99), flush=True)
    require(output.code == 0 and "panicked" not in log, "end of the server:", output.code, log)
    # The memory varies with the last requests of a case.
    quarter = len(server.memory) // 4
    if quarter > 0:
        growth = statistics.median(server.memory[-quarter:]) - statistics.median(server.memory[:quarter])
        require(growth < MAX_GROWTH, f"memory grew by {growth:.0f} MB")


def connections(server):
    _, body = server.request("GET", "/metrics", headers="Connection: close\r\n")
    return int(re.search(rb"trainer_connections (\d+)", body)[1])


# Clients that behave badly.


def behave_badly(server, rng, end, counts, failures):
    """Does random misdeeds until the end."""
    try:
        while time.monotonic() < end:
            misdeed = rng.choice(MISDEEDS)
            misdeed(server, rng)
            # Under the interpreter's lock, threads only lose counts if they switch within this line.
            counts[misdeed.__name__] = counts.get(misdeed.__name__, 0) + 1
    except Failure as failure:
        failures.append(failure)
    except OSError as error:
        failures.append(Failure(f"{misdeed.__name__}: {error}"))


def any_request(server, rng):
    return rng.choice([request for request in server.requests if "token" not in request])


def check(request, status, body):
    require(status == request["status"] and is_equal(body, request["response"]),
            f"{request['path']}: {status} {body[:300]}, expected {request['status']} {request['response'][:300]}")


def is_equal(found, expected):
    """Compares responses, with a tolerance for probabilities."""
    if found == expected:
        return True
    numbers = rb'"(?:probability|calibrated|distance)":([^,}]+)'
    parts, others = (re.split(numbers, text) for text in (found, expected))
    return len(parts) == len(others) and parts[::2] == others[::2] and all(
        abs(float(a) - float(b)) < TOLERANCE for a, b in zip(parts[1::2], others[1::2]))


def byte_by_byte(server, rng):
    request = rng.choice([request for request in server.requests if len(request["body"]) < 1000])
    data = server.head(request["method"], request["path"], len(request["body"]),
                       token=request.get("token", TOKEN)) + request["body"]
    with server.connect() as connection:
        try:
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(0.0005)
        except (BrokenPipeError, ConnectionResetError):
            # A wrong request may be answered before its body is complete.
            require(request["status"] >= 400, "connection closed within a request:", request)
        check(request, *read_response(connection.makefile("rb")))


def in_pieces(server, rng):
    request = any_request(server, rng)
    data = server.head(request["method"], request["path"], len(request["body"])) + request["body"]
    with server.connect() as connection:
        while data:
            size = rng.randrange(1, 400)
            connection.sendall(data[:size])
            data = data[size:]
            time.sleep(rng.uniform(0, 0.01))
        check(request, *read_response(connection.makefile("rb")))


def in_chunks(server, rng):
    request = any_request(server, rng)
    body = b""
    rest = request["body"]
    while rest:
        size = rng.randrange(1, 2000)
        body += f"{len(rest[:size]):x}\r\n".encode() + rest[:size] + b"\r\n"
        rest = rest[size:]
    head = server.head(request["method"], request["path"], 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with server.connect() as connection:
        connection.sendall(head + body + b"0\r\n\r\n")
        check(request, *read_response(connection.makefile("rb")))


def pipelined(server, rng):
    requests = [any_request(server, rng) for _ in range(rng.randrange(2, 20))]
    data = b"".join(server.head(request["method"], request["path"], len(request["body"])) + request["body"]
                    for request in requests)
    with server.connect() as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        stream = connection.makefile("rb")
        for request in requests:
            check(request, *read_response(stream))
        sender.join()


def disconnect(server, rng):
    """Closes the connection within a request, or without reading the response."""
    request = any_request(server, rng)
    data = server.head(request["method"], request["path"], len(request["body"])) + request["body"]
    with server.connect() as connection:
        connection.sendall(data[: rng.randrange(len(data) + 1)])
        if rng.random() < 0.5:
            # Resets the connection.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def no_http(server, rng):
    with server.connect() as connection:
        try:
            connection.sendall(rng.randbytes(rng.randrange(1, 3000)) + b"\r\n\r\n")
            data = connection.recv(4096)
        except ConnectionError:
            return
    require(data == b"" or b" 400 " in data.split(b"\r\n")[0], "response to no HTTP:", data[:200])


def wrong_token(server, rng):
    token = rng.choice(("", "x", TOKEN[:-1], TOKEN + "x", "a" * 5000))
    status, body = server.request("GET", "/api/model", token=token)
    require(status == 401 and json.loads(body)["status"] == 401, "wrong token:", status, body)


def other_site(server, rng):
    status, _ = server.request("GET", "/api/model", host="evil.example")
    require(status == 421, "unknown host:", status)
    status, _ = server.request("POST", "/api/predict", b"[]", headers="Origin: http://evil.example\r\n")
    require(status == 403, "other origin:", status)


def large_batch(server, rng):
    order = [rng.randrange(IMAGES) for _ in range(rng.choice((100, 1000)))]
    body = json.dumps([list(server.images[at]) for at in order]).encode()
    status, answer = server.request("POST", "/api/predict?name=large", body)
    expected = "[" + ",".join(server.expected[f"{at}.png"].replace("PATH", '"large"') for at in order) + "]"
    require(status == 200 and is_equal(answer, expected.encode()), "large batch:", status, answer[:300])


def too_large(server, rng):
    if rng.random() < 0.2:
        status, _ = server.request("POST", "/api/predict", bytes(17 << 20))
        require(status == 413, "17 MB:", status)


def events(server, rng):
    """Follows a run for a moment."""
    with server.connect() as connection:
        connection.sendall(server.head("GET", "/api/runs/run/events", 0))
        data = connection.recv(4096)
        require(data.startswith(b"HTTP/1.1 200"), "events:", data[:200])


MISDEEDS = (byte_by_byte, in_pieces, in_pieces, in_chunks, pipelined, pipelined, disconnect, disconnect, no_http,
            wrong_token, other_site, large_batch, too_large, events)
