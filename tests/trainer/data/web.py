"""A local server that offers tiny archives as CVDF offers Kinetics."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.trainer.data import built
from tests.trainer.data.built import Clip


class Server:
    """Files by address, with ranges as S3 serves them; each entry of `cut` ends one answer after so many bytes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.cut: list[int] = []
        self.ranges = True
        self.etags = True
        self.parts = ""  # behind an ETag: `-2` of a file that S3 was sent in two parts, whose ETag is no MD5
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                body = server.files.get(self.path)
                wanted = self.headers.get("Range", "")
                server.asked.append((self.path, wanted))
                if body is None:
                    self.send_error(404)
                    return
                etag = f'"{hashlib.md5(body).hexdigest()}{server.parts}"'
                match = re.fullmatch(r"bytes=(\d+)-", wanted) if server.ranges else None
                start = int(match[1]) if match and self.headers.get("If-Range", etag) == etag else 0
                if start >= len(body) and start:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                if server.etags:
                    self.send_header("ETag", etag)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                if self.command == "GET":
                    cut = server.cut.pop(0) if server.cut and self.path.endswith("gz") else None
                    self.wfile.write(body[start:][:cut])
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=lambda: self.http.serve_forever(poll_interval=0.02), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def archive(members: dict[str, bytes | str]) -> bytes:
    """A .tar.gz; a text is the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def publish(server: Server, clips: list[Clip], scratch: Path) -> None:
    """Offers clips: those of train in two archives, those of val in one, with lists and tables."""
    for split, parts in (("train", 2), ("val", 1)):
        mine = built.of(clips, split)
        lines = []
        for part in range(parts):
            share = mine[part::parts]
            members = {f"./{clip.path.name}": clip.path.read_bytes() for clip in share}
            server.files[f"/{split}/part_{part}.tar.gz"] = archive(members)
            lines.append(f"https://elsewhere.invalid/kinetics/400/{split}/part_{part}.tar.gz")
        server.files[f"/{split}/k400_{split}_path.txt"] = "\n".join(lines).encode()
        built.write_table(scratch / f"{split}.csv", mine)
        server.files[f"/annotations/{split}.csv"] = (scratch / f"{split}.csv").read_bytes()
