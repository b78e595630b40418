"""Stand-in for Immich's machine learning: it learns nothing, but is as strict about its environment."""

import email.parser
import email.policy
import hashlib
import ipaddress
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOG_LEVELS = ("critical", "error", "warning", "warn", "log", "info", "debug", "verbose")
INTEGERS = (
    "IMMICH_PORT",
    "MACHINE_LEARNING_HTTP_KEEPALIVE_TIMEOUT_S",
    "MACHINE_LEARNING_MODEL_INTER_OP_THREADS",
    "MACHINE_LEARNING_MODEL_INTRA_OP_THREADS",
    "MACHINE_LEARNING_MODEL_TTL",
    "MACHINE_LEARNING_MODEL_TTL_POLL_S",
    "MACHINE_LEARNING_REQUEST_THREADS",
    "MACHINE_LEARNING_WORKERS",
    "MACHINE_LEARNING_WORKER_TIMEOUT",
)
FAULT_FILE = Path("/tmp/standin-unhealthy")
MODEL = "clip/ViT-B-32__openai/textual/model.onnx"
DIMENSIONS = 512
IMAGE = {"imageHeight": 1080, "imageWidth": 1440}


def wrong_settings(environment):
    """Return what is set and cannot be used, as a list of ``NAME=value``."""
    wrong = [name for name in INTEGERS if not environment.get(name, "0").isdecimal()]
    if environment.get("IMMICH_LOG_LEVEL", "info") not in LOG_LEVELS:
        wrong.append("IMMICH_LOG_LEVEL")
    if not environment.get("MACHINE_LEARNING_CACHE_FOLDER", "/cache").startswith("/"):
        wrong.append("MACHINE_LEARNING_CACHE_FOLDER")
    try:
        ipaddress.ip_address(environment.get("IMMICH_HOST", "::").strip("[]"))
    except ValueError:
        wrong.append("IMMICH_HOST")
    return [f"{name}={environment[name]}" for name in wrong]


def log(message):
    print(f"[{time.strftime('%x %X')}] INFO     {message}", flush=True)


def first_use(environment):
    """Write what the first use of a model leaves in its folders."""
    home = Path(environment.get("HOME", "/"))
    transfers = Path(environment.get("HF_XET_CACHE", home / ".cache/huggingface/xet"))
    transfers.mkdir(parents=True, exist_ok=True)
    model = Path(environment.get("MACHINE_LEARNING_CACHE_FOLDER", "/cache")) / MODEL
    if model.exists():
        return
    log(f"Downloading model to {model}. This may take a while.")
    model.parent.mkdir(parents=True, exist_ok=True)
    model.write_bytes(b"stand-in model\n")


def form(content_type, body):
    """The fields of a multipart form, as bytes."""
    headers = f"content-type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(headers + body)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.iter_parts()
    }


def embedding(payload, of):
    """A vector of length 1 that is another for each image, in the text form in which Immich's service answers."""
    seed = hashlib.sha256(of.encode() + payload).digest()
    drawn = hashlib.shake_256(seed).digest(DIMENSIONS)
    values = [byte / 127.5 - 1 for byte in drawn]
    length = math.sqrt(sum(value * value for value in values))
    return json.dumps([round(value / length, 7) for value in values], separators=(",", ":"))


def clip(payload):
    return embedding(payload, "clip")


def faces(payload):
    box = {"x1": 100.0, "y1": 120.0, "x2": 260.0, "y2": 320.0}
    return [{"boundingBox": box, "embedding": embedding(payload, "face"), "score": 0.87}]


def texts(payload):
    """Where each text stands: four corners, as parts of width and height."""
    word = f"STAND-IN {hashlib.sha256(payload).hexdigest()[:8]}"
    corners = [0.1, 0.1, 0.5, 0.1, 0.5, 0.2, 0.1, 0.2]
    return {"text": [word], "box": corners, "boxScore": [0.92], "textScore": [0.98]}


# As immich_ml/main.py of v2.7 answers, by the task that is asked for.
TASKS = {"clip": clip, "facial-recognition": faces, "ocr": texts}


def predict(fields):
    """Status and body of the answer to a form: `entries`, and `image` or `text`."""
    try:
        tasks = [task for task, types in json.loads(fields["entries"]).items() for _ in types.values()]
        answer = {task: TASKS[task] for task in tasks}
    except (AttributeError, KeyError, ValueError):
        return 422, {"detail": "Invalid request format."}
    payload = fields.get("image") or fields.get("text")
    if payload is None:
        return 400, {"detail": "Either image or text must be provided"}
    answer = {task: function(payload) for task, function in answer.items()}
    return 200, {**answer, **(IMAGE if "image" in fields else {})}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/ping":
            self.ping()
        elif self.path == "/":
            self.answer(200, {"message": "Immich ML stand-in", "version": os.environ.get("STANDIN_VERSION")})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self):
        fields = form(self.headers.get("content-type", ""), self.body())
        if self.path != "/predict":
            self.answer(404, {"detail": "Not Found"})
            return
        try:
            first_use(os.environ)
        except OSError as error:
            log(f"Failed to load model: {error}")
            self.answer(500, {"detail": str(error)})
            return
        self.answer(*predict(fields))

    def body(self):
        """Node's fetch sends forms in chunks."""
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def ping(self):
        if os.environ.get("STANDIN_NEVER_HEALTHY") == "true" or FAULT_FILE.exists():
            self.reply(503, "text/plain", b"The stand-in was told to be unhealthy")
            return
        self.reply(200, "text/plain", b"pong")

    def answer(self, status, body):
        self.reply(status, "application/json", json.dumps(body).encode())

    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """The service logs no requests."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host, port):
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)


def crash():
    log("The stand-in was told to crash")
    os._exit(1)


def main():
    wrong = wrong_settings(os.environ)
    if wrong:
        sys.exit(f"Invalid environment variables: {', '.join(wrong)}")
    # As PID 1 it has no default reaction to the signal that asks it to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if "STANDIN_CRASH_AFTER" in os.environ:
        threading.Timer(float(os.environ["STANDIN_CRASH_AFTER"]), crash).start()
    host = os.environ.get("IMMICH_HOST", "::").strip("[]")
    port = int(os.environ.get("IMMICH_PORT", "3003"))
    server = Server(host, port)
    log(f"Listening at: http://{host}:{port} [{os.environ.get('STANDIN_VERSION')}]")
    server.serve_forever()


if __name__ == "__main__":
    main()
