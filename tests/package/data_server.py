"""A web server on this machine that delivers files well or badly, and tiny sets."""

import gzip
import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

START = ("train", "t10k")


class Server:
    """Serves ``files`` (name to bytes); ``manner`` says how."""

    def __init__(self):
        self.files, self.manner, self.served = {}, "well", []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.released = threading.Event()
        threading.Thread(
            target=self.http.serve_forever, args=(0.02,), daemon=True
        ).start()

    def answer(self, request):
        name = request.path.removeprefix("/")
        self.served.append(name)
        if name not in self.files or self.manner == "missing":
            return request.send_error(404)
        data = self.files[name]
        request.send_response(200)
        if self.manner != "unknown length":
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if self.manner == "wrong bytes":
            data = bytes([data[0] ^ 1]) + data[1:]
        if self.manner in ("truncated", "stalled", "unknown length truncated"):
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            if self.manner == "stalled":
                self.released.wait(60)
            return None
        if self.manner == "slow":
            time.sleep(1.0)
        return request.wfile.write(data)

    def close(self):
        self.released.set()
        self.http.shutdown()
        self.http.server_close()


def idx(values):
    """The bytes of a gzipped idx file."""
    head = bytes([0, 0, 8, values.ndim])
    head += b"".join(int(n).to_bytes(4) for n in values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


def tiny_mnist(seed=0, count=20):
    """Files by name, their checksums, and the arrays in them."""
    rng = np.random.default_rng(seed)
    files, arrays = {}, {}
    for start in START:
        images = rng.integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = rng.integers(10, size=count, dtype=np.uint8)
        files[f"{start}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{start}-labels-idx1-ubyte.gz"] = idx(labels)
        arrays[start] = images, labels
    return files, checksums(files), arrays


def checksums(files):
    """The md5 of each file, by name."""
    return {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
