"""Fetches photos that travel as an address, from the places that the operator allowed and from nowhere else.

An address comes from outside, so whoever sends it would decide what this process opens (server-side request
forgery). Hence: nothing is allowed by default; scheme, host, port and folder must be those of an allowed prefix,
compared after parsing; a host is resolved once, all its addresses must be public, and the connection goes to one
of just those; no redirects, no proxies; bytes and seconds are bounded.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import itertools
import os
import re
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote_to_bytes

import fsspec

from damagewatch.domain import DependencyDownError, Reason, Refused

T = TypeVar("T")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

OBJECT_STORES: Final = ("s3", "gs")
SCHEMES: Final = ("file", "https", *OBJECT_STORES)
LONGEST: Final = 4096
STEP: Final = "fetch"
CHUNK: Final = 1 << 16
TRIES: Final = 5
"""Of a photo that does not come although others from the same place do; each is a pause of the stream."""
MOST_FAILED: Final = 1000
"""Addresses whose failures are counted at once."""

PARTS: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\\]*)(/[^?#\\]*)?(\?[^#\\]*)?", re.ASCII)
HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?", re.ASCII)
BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)

NOT_PUBLIC: Final = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's host agent: a public address that is not
        "192.0.0.0/24",  # of protocols; a metadata service of Oracle's cloud
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4-compatible
        "64:ff9b:1::/48",  # NAT64 of one's own network
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
    )
]
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class _Place:
    """An address in parts: `authority` is host and port, or the bucket; `segments` those of the path."""

    scheme: str
    authority: str
    segments: tuple[str, ...]
    query: str = ""

    def is_below(self, other: _Place) -> bool:
        return (
            (self.scheme, self.authority) == (other.scheme, other.authority)
            and len(self.segments) > len(other.segments)
            and self.segments[: len(other.segments)] == other.segments
        )


class _Patience:
    """Tells one photo that never comes from a store that is down, so that the one does not hold up the stream.

    A photo is given up after `TRIES` failures, if others came from the same place since the first of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events = itertools.count()
        self._came: dict[str, int] = {}
        self._failed: dict[str, tuple[int, int]] = {}
        """By address: the first failure's number, and how many there were."""

    def came(self, authority: str) -> None:
        with self._lock:
            self._came[authority] = next(self._events)

    def is_over(self, uri: str, authority: str) -> bool:
        """Counts a failure, and says whether to give up."""
        with self._lock:
            first, failures = self._failed.pop(uri, (next(self._events), 0))
            if failures + 1 >= TRIES and self._came.get(authority, -1) > first:
                return True
            self._failed[uri] = first, failures + 1
            if len(self._failed) > MOST_FAILED:
                del self._failed[next(iter(self._failed))]
            return False


class References:
    """Fetches photos by reference. Thread safe.

    Args:
        allowed: Prefixes such as `s3://bucket/photos/`, `file:///srv/photos/`, `https://host/path/`. A prefix
            stands for what lies below it: `https://host/a` allows `https://host/a/b`, not `https://host/ab`.
        max_bytes: Largest photo.
        timeout: Seconds that one photo may take in all.
        resolve: Host and port to IP addresses.
        permitted: Whether a connection may go to an address.
        ca_file: PEM certificates to trust instead of the system's.

    Raises:
        ValueError: A prefix is malformed, or needs a package that is not installed.
    """

    def __init__(
        self,
        allowed: Sequence[str] = (),
        *,
        max_bytes: int = 20 * 1024 * 1024,
        timeout: float = 10.0,
        resolve: Resolve | None = None,
        permitted: Callable[[Address], bool] | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._allowed = tuple(_prefix(prefix) for prefix in allowed)
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._resolve = resolve or _resolve
        self._permitted = permitted or is_public
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._tls.sslsocket_class = _TimedSocket
        self._patience = _Patience()

    def fetch(self, uri: str) -> bytes:
        """The photo at `uri`.

        Raises:
            Refused: The address is malformed, not allowed, names nothing, or names something too large.
            DependencyDownError: Its store does not answer now.
        """
        place = _parse(uri)
        prefix = next((prefix for prefix in self._allowed if place.is_below(prefix)), None)
        if prefix is None:
            raise Refused(Reason.REFERENCE_NOT_ALLOWED, f"no allowed prefix covers {uri[:200]!r}", STEP)
        try:
            content = self._read(place, prefix)
        except DependencyDownError as error:
            if self._patience.is_over(uri, place.authority):
                detail = f"never came in {TRIES} tries, while others from its place did: {error.detail}"
                raise Refused(Reason.REFERENCE_NOT_FOUND, detail[:500], STEP) from error
            raise
        self._patience.came(place.authority)
        return content

    def _read(self, place: _Place, prefix: _Place) -> bytes:
        if place.scheme == "file":
            return self._from_file(place, prefix)
        if place.scheme == "https":
            return self._from_https(place)
        return self._from_object_store(place)

    def _from_file(self, place: _Place, prefix: _Place) -> bytes:
        root = os.path.realpath(_local(prefix))
        path = os.path.realpath(_local(place))
        if os.path.commonpath([root, path]) != root:
            raise Refused(Reason.REFERENCE_NOT_ALLOWED, "a link leads out of the allowed folder", STEP)
        try:
            # Not blocking: a pipe in the folder must not hold us up.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if not Path(root).is_dir():
                raise DependencyDownError("references", f"the allowed folder {root} is not there") from error
            if error.errno in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise DependencyDownError("references", f"{path}: {error.strerror}") from error
            raise _not_found(str(error.strerror)) from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _not_found("not a file")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return self._bounded(file.read(self._max_bytes + 1))
        except OSError as error:
            raise DependencyDownError("references", f"{path}: {error.strerror}") from error
        finally:
            os.close(handle)

    def _from_object_store(self, place: _Place) -> bytes:
        path = "/".join((place.authority, *place.segments))
        filesystem = fsspec.filesystem(place.scheme)

        def read() -> bytes:
            try:
                content: bytes = filesystem.cat_file(path, start=0, end=self._max_bytes + 1)
            except OSError:
                if filesystem.size(path) == 0:  # of nothing, no store gives a range
                    return b""
                raise
            return content

        try:
            return self._bounded(_within(self._timeout, read))
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            # Stores that do not let us list a bucket say "forbidden" of what is not there.
            raise _not_found(str(error) or type(error).__name__) from error
        except Refused:
            raise
        except Exception as error:  # whatever the store's client library raises
            raise DependencyDownError(
                "references", f"{place.scheme}://{place.authority}: {type(error).__name__}: {error}"
            ) from error

    def _from_https(self, place: _Place) -> bytes:
        deadline = time.monotonic() + self._timeout
        host, _, port = place.authority.partition(":")
        try:
            connection = http.client.HTTPSConnection(host, int(port or 443))
            connection.sock = self._connect(host, int(port or 443), deadline)
            with connection.sock:
                target = "/" + "/".join(place.segments) + place.query
                connection.request("GET", target, headers={"Accept": "image/*", "Connection": "close"})
                return self._answer(connection.getresponse(), deadline)
        except (OSError, http.client.HTTPException) as error:
            raise DependencyDownError("references", f"{host}: {type(error).__name__}: {error}") from error

    def _connect(self, host: str, port: int, deadline: float) -> ssl.SSLSocket:
        """A connection to an address that was looked at, while the certificate is checked for the host."""
        addresses = _within(_left(deadline), lambda: self._resolve(host, port))
        for address in addresses:
            if not self._permitted(ipaddress.ip_address(address)):
                raise Refused(
                    Reason.REFERENCE_NOT_ALLOWED, f"{host} is at {address}, which is not public", STEP
                )
        failure = OSError(f"{host} has no address")
        for address in addresses:
            try:
                plain = socket.create_connection((address, port), timeout=_left(deadline))
            except OSError as error:
                failure = error
                continue
            try:
                plain.settimeout(_left(deadline))
                secure = self._tls.wrap_socket(plain, server_hostname=host)
            except BaseException:
                plain.close()
                raise
            assert isinstance(secure, _TimedSocket)
            secure.deadline = deadline
            return secure
        raise failure

    def _answer(self, response: http.client.HTTPResponse, deadline: float) -> bytes:
        if response.status in (408, 425, 429) or response.status >= 500:
            raise OSError(f"answered {response.status}")
        if 300 <= response.status < 400:
            raise Refused(Reason.REFERENCE_NOT_ALLOWED, "redirects are not followed", STEP)
        if response.status != 200:
            raise _not_found(f"the server answered {response.status}")
        announced = response.length
        if announced is not None and announced > self._max_bytes:
            raise self._too_large()
        content = bytearray()
        while chunk := response.read(min(CHUNK, self._max_bytes + 1 - len(content))):
            content += chunk
            if len(content) > self._max_bytes:
                raise self._too_large()
            _left(deadline)
        if announced is not None and len(content) < announced:
            raise OSError(f"{len(content)} bytes came of {announced}")
        return bytes(content)

    def _bounded(self, content: bytes) -> bytes:
        if len(content) > self._max_bytes:
            raise self._too_large()
        return content

    def _too_large(self) -> Refused:
        return Refused(Reason.PHOTO_TOO_LARGE, f"more than {self._max_bytes} bytes", STEP)


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, whatever it is wrapped in.

    `ipaddress.is_global` alone says so of NAT64 loopback, of site-local and of multicast addresses.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.scope_id is not None:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in NOT_PUBLIC)
    )


class _TimedSocket(ssl.SSLSocket):
    """A TLS socket with one deadline for all that is read: a server that drips bytes gains nothing."""

    deadline: float | None = None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.deadline is not None:
            self.settimeout(_left(self.deadline))
        return super().recv_into(buffer, nbytes, flags)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("took too long")
    return left


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, which has no timeout of its own; it is left behind where it takes too long."""
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # raised below, by the caller's thread
            failures.append(error)

    thread = threading.Thread(target=work, name="reference", daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:.1f} s")
    return results[0]


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _parse(uri: str) -> _Place:
    """An address in parts, or `Refused`: what two parsers could read in two ways is not an address."""

    def invalid(why: str) -> Refused:
        return Refused(Reason.REFERENCE_INVALID, f"{why}: {uri[:200]!r}", STEP)

    if len(uri) > LONGEST:
        raise invalid(f"longer than {LONGEST} characters")
    parts = PARTS.fullmatch(uri)
    if parts is None or not uri.isprintable():
        raise invalid("not an address")
    scheme, authority, path, query = (part or "" for part in parts.groups())
    if scheme not in SCHEMES:
        raise Refused(Reason.REFERENCE_NOT_ALLOWED, f"addresses of kind {scheme!r} are not fetched", STEP)
    if scheme == "file":
        if authority not in ("", "localhost") or query:
            raise invalid("not a local file")
        authority = ""
    elif scheme == "https":
        authority = authority.lower().removesuffix(":443")
        if (
            not HOST.fullmatch(authority)
            or ".." in authority
            or int(authority.partition(":")[2] or 0) > 65535
        ):
            raise invalid("no host")
        if not uri.isascii() or " " in uri:
            raise invalid("not percent-encoded")
    elif not BUCKET.fullmatch(authority) or query:
        raise invalid("no bucket")
    segments = tuple(path.split("/")[1:])
    for segment in segments:
        plain = unquote_to_bytes(segment)
        if plain in (b".", b"..") or b"/" in plain or b"\\" in plain or b"\0" in plain:
            raise invalid("a path with a segment that leads elsewhere")
    return _Place(scheme, authority, segments, query)


def _prefix(prefix: str) -> _Place:
    try:
        place = _parse(prefix)
    except Refused as refused:
        raise ValueError(f"not a prefix that photos may be fetched from: {refused.detail}") from refused
    if place.query:
        raise ValueError(f"a prefix that photos may be fetched from has no query: {prefix!r}")
    if place.scheme in OBJECT_STORES:
        try:
            fsspec.get_filesystem_class(place.scheme)
        except ImportError as error:
            raise ValueError(f"{prefix!r} needs a package that is not installed: {error}") from error
    return _Place(place.scheme, place.authority, tuple(filter(None, place.segments)))


def _local(place: _Place) -> str:
    return os.fsdecode(b"/" + b"/".join(unquote_to_bytes(segment) for segment in place.segments))


def _not_found(detail: str) -> Refused:
    return Refused(Reason.REFERENCE_NOT_FOUND, detail, STEP)
