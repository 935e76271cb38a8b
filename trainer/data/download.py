"""Files from a web server: in parts, going on where an earlier try stopped, checked against a checksum."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

_TIMEOUT = 60.0
_BLOCK = 1 << 20
_PAUSE = 1.0  # seconds before the second try; doubled for each further one
_LONGEST_TEXT = 4 * 2**20  # bytes: the list of the 242 archives of Kinetics-400 has 16,000
HASHES = {32: "md5", 40: "sha1", 64: "sha256"}
"""Checksums that a file may be held to, by their number of hex digits."""


class FetchError(Exception):
    """A file cannot be fetched; the message is one line with address and reason."""


def fetch(
    address: str,
    place: Path,
    *,
    checksum: str = "",
    tries: int = 5,
    pause: float = _PAUSE,
    largest: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Fetches a file; what an earlier try has left in `place` with `.part` behind is gone on with by an HTTP range.

    Args:
        address: Of the file, http or https.
        place: Where it goes, by one rename when it is complete and checked.
        checksum: MD5, SHA-1 or SHA-256 in hex; empty holds it to an ETag that is an MD5, if the server sends one.
        tries: How often it is tried.
        pause: Seconds before the second try, doubled for each further one.
        largest: Bytes that it may have; 0 allows any number.
        progress: Called with (bytes there, bytes in all).

    Returns:
        The SHA-256 of the file.

    Raises:
        FetchError: Every try has failed, or the file is larger than it may be.
        OSError: The disk is full, or the place cannot be written; what is there stays.
    """
    part = place.with_name(place.name + ".part")
    tag = part.with_name(part.name + ".etag")
    if place.is_file():
        return _sha256(place)
    reason = ""
    for number in range(tries):
        if number:
            time.sleep(pause * 2 ** (number - 1))
        try:
            stated = _rest(address, part, tag, largest, progress)
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            error.close()
            if 400 <= error.code < 500 and error.code not in (408, 416, 429):
                break  # asking again does not help
            if error.code == 416:
                part.unlink(missing_ok=True)
            continue
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            continue
        except _LargeError as error:
            part.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)
            raise FetchError(f"{address} is not fetched: {error}") from error
        except _ShortError as error:
            reason = str(error)
            continue
        wrong = _wrong(part, checksum or stated)
        if not wrong:
            digest = _sha256(part)
            part.rename(place)
            tag.unlink(missing_ok=True)
            return digest
        reason = wrong
        part.unlink()
        tag.unlink(missing_ok=True)
    raise FetchError(f"{address} cannot be fetched: {reason}")


def fetch_text(address: str, *, head: bool = False) -> str:
    """The text at an address; with `head`, only asks whether there is one.

    Raises:
        FetchError: There is none, or it is longer than a list can be.
    """
    request = urllib.request.Request(address, method="HEAD" if head else "GET")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            text = answer.read(_LONGEST_TEXT + 1)
            if len(text) > _LONGEST_TEXT:
                raise FetchError(f"{address} is not fetched: a list must have at most {_LONGEST_TEXT:,} bytes")
            return str(text.decode("utf-8"))
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{address} cannot be fetched: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, UnicodeDecodeError) as error:
        raise FetchError(f"{address} cannot be fetched: {getattr(error, 'reason', '') or error}") from error


class _LargeError(Exception):
    """The file is larger than it may be."""


class _ShortError(Exception):
    """The connection ended before the file did."""


def _rest(address: str, part: Path, tag: Path, largest: int, progress: Callable[[int, int], None] | None) -> str:
    """Fetches what is missing of a file; returns its MD5 by the server, if it tells."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address)
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.is_file():  # if the file has changed since, the server sends all of it
            request.add_header("If-Range", tag.read_text("ascii"))
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        whole = re.fullmatch(r"bytes \*/(\d{1,18})", error.headers.get("Content-Range", "") or "")
        if error.code == 416 and whole and int(whole[1]) == have:
            error.close()
            return _md5_of(error.headers.get("ETag", "") or "")  # all of it was there
        raise
    with answer:
        etag = answer.headers.get("ETag", "") or ""
        span = re.match(r"bytes (\d{1,18})-\d+/(\d{1,18})", answer.headers.get("Content-Range", "") or "")
        if answer.status != 206 or span is None or int(span[1]) != have:
            have = 0  # the server knows no ranges, or the file is another one
        length = re.fullmatch(r"\d{1,18}", answer.headers.get("Content-Length", "") or "")
        total = int(span[2]) if span and have else int(length[0]) if length else 0
        if largest and total > largest:
            raise _LargeError(f"it must have at most {largest:,} bytes, but has {total:,}")
        if etag and etag.isascii() and not etag.startswith("W/"):
            tag.write_text(etag, "ascii")
        with part.open("ab" if have else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                if largest and have > largest:
                    raise _LargeError(f"it must have at most {largest:,} bytes, but has more")
                if progress is not None:
                    progress(have, max(total, have))
    if total and have < total:
        raise _ShortError(f"the connection ended after {have:,} of {total:,} bytes")
    return _md5_of(etag)


def _md5_of(etag: str) -> str:
    """The MD5 that an ETag of S3 is, unless the file was uploaded in several parts."""
    match = re.fullmatch(r'"([0-9a-f]{32})"', etag)
    return match[1] if match else ""


def _wrong(path: Path, checksum: str) -> str:
    if not checksum:
        return ""
    name = HASHES.get(len(checksum))
    if name is None:
        return f"a checksum must be an MD5, SHA-1 or SHA-256 in hex, but is {checksum!r}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, name).hexdigest()
    return "" if found == checksum.lower() else f"its {name} must be {checksum}, but is {found}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
