from __future__ import annotations

import errno
import http.server
import ipaddress
import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damagewatch.domain import DependencyDownError, Reason, Refused
from damagewatch.pipeline import references
from damagewatch.pipeline.references import References, is_public

CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""Of photos.example and localhost, self-signed, with its key: for these tests only."""

PUBLIC = ["93.184.216.34"]


def refusal(fetcher: References, uri: str) -> Reason:
    with pytest.raises(Refused) as caught:
        fetcher.fetch(uri)
    assert caught.value.stage == "fetch"
    return caught.value.reason


def never(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host}:{port} was looked up")


ALLOWED = ("https://photos.example/claims/", "file:///srv/photos/", "https://photos.example:8443")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://photos.example/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("ftp://photos.example/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("gopher://photos.example/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("data://photos.example/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("s3://photos.example/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("simplecache::https://photos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example.evil.test/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https://evil.test/https://photos.example/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https://photos.example:444/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https://photos.example:443444/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example:99999/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example:/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims", Reason.REFERENCE_NOT_ALLOWED),
        ("https://photos.example/claims-of-others/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https://photos.example/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https://photos.example/claims/../a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/%2e%2e/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/%2E./a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/..%2fa.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/..%5ca.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/%00", Reason.REFERENCE_INVALID),
        ("https://user@photos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example@127.0.0.1/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://127.0.0.1\\@photos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://a@127.0.0.1\\@photos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example\\.evil.test/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example#@evil.test/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/a.jpg#x", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/a.jpg HTTP/1.1\r\nHost: evil.test", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/a b.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/ü.jpg", Reason.REFERENCE_INVALID),
        ("https://ⓟhotos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://photos.example./claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://[::1]/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https://127.1/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https://2130706433/claims/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("https:///claims/a.jpg", Reason.REFERENCE_INVALID),
        ("https:photos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("//photos.example/claims/a.jpg", Reason.REFERENCE_INVALID),
        ("/srv/photos/a.jpg", Reason.REFERENCE_INVALID),
        ("file://evil.test/srv/photos/a.jpg", Reason.REFERENCE_INVALID),
        ("file:///srv/photos/../secret", Reason.REFERENCE_INVALID),
        ("file:///srv/photos/%2e%2e/secret", Reason.REFERENCE_INVALID),
        ("file:///srv/photos/a.jpg\0.png", Reason.REFERENCE_INVALID),
        ("file:///srv/photos/a.jpg%00.png", Reason.REFERENCE_INVALID),
        ("file:///etc/passwd", Reason.REFERENCE_NOT_ALLOWED),
        ("file:///srv/photos", Reason.REFERENCE_NOT_ALLOWED),
        ("file:///srv/photos-of-others/a.jpg", Reason.REFERENCE_NOT_ALLOWED),
        ("", Reason.REFERENCE_INVALID),
        ("\ud800", Reason.REFERENCE_INVALID),
        ("https://photos.example/claims/" + "a" * 5000, Reason.REFERENCE_INVALID),
    ],
)
def test_a_hostile_address_is_refused_before_anything_is_looked_up(uri: str, reason: Reason) -> None:
    assert refusal(References(ALLOWED, resolve=never), uri) is reason


def only_the_allowed_host(host: str, port: int) -> list[str]:
    assert (host, port) == ("photos.example", 443)
    return ["127.0.0.1"]


RESOLVING_TO_ITSELF = References(ALLOWED[:1], resolve=only_the_allowed_host)


@given(st.text(max_size=60) | st.from_regex(r"https://photos\.example/claims/.{0,30}", fullmatch=True))
def test_any_text_is_refused_and_none_but_the_allowed_host_looked_up(uri: str) -> None:
    with pytest.raises(Refused):
        RESOLVING_TO_ITSELF.fetch(uri)


def test_nothing_is_allowed_by_default() -> None:
    assert refusal(References(), "file:///etc/hostname") is Reason.REFERENCE_NOT_ALLOWED


@pytest.mark.parametrize(
    "prefix", ["", "/srv", "http://h/", "https://", "https://u@h/", "https://h/?q", "ftp://h/"]
)
def test_a_malformed_prefix_is_refused_at_the_start(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        References([prefix])


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("64:ff9b::5db8:d822", True),
        ("::ffff:93.184.216.34", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("::127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::1", False),
        ("2002:7f00:1::", False),
        ("2001:0:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fe80::1", False),
        ("fec0::1", False),
        ("fd00:ec2::254", False),
        ("ff0e::1", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


@pytest.mark.parametrize("answer", [["127.0.0.1"], [*PUBLIC, "10.0.0.1"], ["::ffff:169.254.169.254"]])
def test_a_host_with_any_address_that_is_not_public_is_refused(answer: list[str]) -> None:
    fetcher = References(ALLOWED, resolve=lambda host, port: answer)
    assert refusal(fetcher, "https://photos.example/claims/a.jpg") is Reason.REFERENCE_NOT_ALLOWED


class Server:
    """A TLS server on this machine that plays photos.example, and says what it was asked."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, dict(self.headers)))
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port = self.http.server_address[1]
        self.answer: Callable[[http.server.BaseHTTPRequestHandler], None] = respond(200, b"photo")
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def fetcher(self, host: str = "photos.example", **settings: object) -> References:
        resolved: list[str] = []

        def resolve(name: str, port: int) -> list[str]:
            assert not resolved, "resolved twice"
            resolved.append(name)
            return ["127.0.0.1"]

        return References(
            [f"https://{host}:{self.port}/claims/"],
            resolve=resolve,
            permitted=lambda address: True,
            **{"ca_file": CERTIFICATE, "timeout": 5.0, **settings},  # type: ignore[arg-type]
        )

    def uri(self, path: str = "claims/a.jpg", host: str = "photos.example") -> str:
        return f"https://{host}:{self.port}/{path}"


def respond(
    status: int, body: bytes = b"", **headers: str
) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value:
                request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_photo_comes_over_https_with_name_kept_and_no_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert server.fetcher().fetch(server.uri("claims/%20a.jpg?sig=1%2F2")) == b"photo"
    ((path, headers),) = server.requests
    assert path == "/claims/%20a.jpg?sig=1%2F2"
    assert headers["Host"] == f"photos.example:{server.port}"


def test_a_chunked_photo_of_unknown_length_comes_whole(server: Server) -> None:
    server.answer = respond(
        200, b"5\r\nphoto\r\n3\r\n of\r\n0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked"
    )
    server.http.RequestHandlerClass.protocol_version = "HTTP/1.1"  # type: ignore[attr-defined]
    assert server.fetcher().fetch(server.uri()) == b"photo of"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (301, Reason.REFERENCE_NOT_ALLOWED),
        (302, Reason.REFERENCE_NOT_ALLOWED),
        (307, Reason.REFERENCE_NOT_ALLOWED),
        (404, Reason.REFERENCE_NOT_FOUND),
        (410, Reason.REFERENCE_NOT_FOUND),
        (403, Reason.REFERENCE_NOT_FOUND),
        (206, Reason.REFERENCE_NOT_FOUND),
    ],
)
def test_answers_that_are_no_photo(server: Server, status: int, reason: Reason) -> None:
    server.answer = respond(status, Location="https://127.0.0.1/claims/b.jpg")
    assert refusal(server.fetcher(), server.uri()) is reason
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_in_trouble_is_down(server: Server, status: int) -> None:
    server.answer = respond(status)
    with pytest.raises(DependencyDownError, match=rf"references: photos\.example.*{status}"):
        server.fetcher().fetch(server.uri())


def test_one_photo_that_never_comes_is_given_up_but_a_store_that_is_down_is_not(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(name: str) -> bytes:
        return fetcher.fetch(f"memory://{bucket}/photos/claim 1/{name}")

    def read(place: object, prefix: object) -> bytes:
        if down or str(place).find("poison") >= 0:
            raise DependencyDownError("references", "503")
        return b"photo"

    fetcher = References([f"memory://{bucket}/photos"])
    monkeypatch.setattr(fetcher, "_read", read)
    down = True
    for name in ("poison.jpg", "a.jpg") * 10:
        with pytest.raises(DependencyDownError):
            fetch(name)
    down = False
    assert fetch("a.jpg") == b"photo"
    with pytest.raises(Refused, match="503") as given_up:
        fetch("poison.jpg")
    assert given_up.value.reason is Reason.REFERENCE_NOT_FOUND
    with pytest.raises(DependencyDownError):  # sent again, it is tried again
        fetch("poison.jpg")


def endless(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b"x" * 65536)
    except OSError:
        pass


@pytest.mark.parametrize(
    "answer",
    [respond(200, b"x" * 1001), endless, respond(200, b"", Content_Length="99999999999")],
    ids=["a byte more", "endless", "announced"],
)
def test_no_more_bytes_are_read_than_a_photo_may_have(
    server: Server, answer: Callable[[http.server.BaseHTTPRequestHandler], None]
) -> None:
    server.answer = answer
    assert refusal(server.fetcher(max_bytes=1000), server.uri()) is Reason.PHOTO_TOO_LARGE
    server.answer = respond(200, b"x" * 1000)
    assert len(server.fetcher(max_bytes=1000).fetch(server.uri())) == 1000


def test_an_answer_that_breaks_off_is_not_a_photo(server: Server) -> None:
    server.answer = respond(200, b"half", Content_Length="8")
    with pytest.raises(DependencyDownError, match="4 bytes came of 8"):
        server.fetcher().fetch(server.uri())


def drip_body(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    drip(request)


def drip(request: http.server.BaseHTTPRequestHandler) -> None:
    try:
        for _ in range(600):
            request.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize("answer", [drip_body, drip], ids=["body", "status line"])
def test_a_server_that_drips_bytes_is_left_in_time(
    server: Server, answer: Callable[[http.server.BaseHTTPRequestHandler], None]
) -> None:
    server.answer = answer
    with pytest.raises(DependencyDownError, match="Timeout"):
        server.fetcher(timeout=0.5).fetch(server.uri())


def test_a_resolver_that_hangs_is_left_in_time() -> None:
    released = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        released.wait(30)
        return PUBLIC

    with pytest.raises(DependencyDownError, match="no answer within"):
        References(ALLOWED, resolve=resolve, timeout=0.2).fetch("https://photos.example/claims/a.jpg")
    released.set()


def test_a_server_without_the_hosts_certificate_gets_no_request(server: Server) -> None:
    with pytest.raises(DependencyDownError, match="CERTIFICATE_VERIFY_FAILED"):
        server.fetcher(ca_file=None).fetch(server.uri())
    with pytest.raises(DependencyDownError, match="CERTIFICATE_VERIFY_FAILED"):
        server.fetcher("other.example").fetch(server.uri(host="other.example"))
    assert server.requests == []


def test_a_host_that_does_not_resolve_or_listen_is_down() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(DependencyDownError, match="not known"):
        References(ALLOWED, resolve=unknown).fetch("https://photos.example/claims/a.jpg")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        fetcher = References(
            [f"https://photos.example:{port}"],
            resolve=lambda host, port: ["127.0.0.1"],
            permitted=lambda address: True,
        )
        with pytest.raises(DependencyDownError, match=r"references: photos\.example"):
            fetcher.fetch(f"https://photos.example:{port}/a.jpg")


def test_a_local_photo_is_read_below_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "claim 1").mkdir(parents=True)
    (folder / "claim 1" / "ü%.jpg").write_bytes(b"photo")
    fetcher = References([f"file://{folder}"])
    for uri in (f"file://{folder}/claim%201/%C3%BC%25.jpg", f"file://localhost{folder}/claim 1/ü%25.jpg"):
        assert fetcher.fetch(uri) == b"photo"


def test_local_names_that_are_no_photo(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "sub-link").symlink_to(tmp_path)
    (folder / "inner-link").symlink_to(folder / "a.jpg")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "a.jpg").write_bytes(b"x" * 11)
    os.mkfifo(folder / "pipe")
    fetcher = References([f"file://{folder}/"], max_bytes=11)
    outcomes = {
        "link": Reason.REFERENCE_NOT_ALLOWED,
        "sub-link/secret": Reason.REFERENCE_NOT_ALLOWED,
        "missing.jpg": Reason.REFERENCE_NOT_FOUND,
        "a.jpg/b": Reason.REFERENCE_NOT_FOUND,
        "loop": Reason.REFERENCE_NOT_FOUND,
        "sub": Reason.REFERENCE_NOT_FOUND,
        "pipe": Reason.REFERENCE_NOT_FOUND,
        "x" * 300: Reason.REFERENCE_NOT_FOUND,
    }
    assert {name: refusal(fetcher, f"file://{folder}/{name}") for name in outcomes} == outcomes
    assert fetcher.fetch(f"file://{folder}/inner-link") == b"x" * 11
    assert (
        refusal(References([f"file://{folder}/"], max_bytes=10), f"file://{folder}/a.jpg")
        is Reason.PHOTO_TOO_LARGE
    )


def test_a_folder_that_is_not_mounted_is_down(tmp_path: Path) -> None:
    fetcher = References([f"file://{tmp_path}/mount/"])
    with pytest.raises(DependencyDownError, match="is not there"):
        fetcher.fetch(f"file://{tmp_path}/mount/a.jpg")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Memory plays the object store."""
    monkeypatch.setattr(references, "OBJECT_STORES", ("memory",))
    monkeypatch.setattr(references, "SCHEMES", ("memory",))
    name = uuid.uuid4().hex
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/{name}/photos/claim 1/a.jpg", b"photo")
    memory.pipe_file(f"/{name}/secret.jpg", b"secret")
    yield name
    memory.rm(f"/{name}", recursive=True)


def test_a_photo_comes_from_an_object_store(bucket: str) -> None:
    fetcher = References([f"memory://{bucket}/photos"], max_bytes=5)
    assert fetcher.fetch(f"memory://{bucket}/photos/claim 1/a.jpg") == b"photo"
    outcomes = {
        f"memory://{bucket}/photos/claim 1/b.jpg": Reason.REFERENCE_NOT_FOUND,
        f"memory://{bucket}/secret.jpg": Reason.REFERENCE_NOT_ALLOWED,
        f"memory://{bucket}/photos/../secret.jpg": Reason.REFERENCE_INVALID,
        f"memory://{bucket}-2/photos/a.jpg": Reason.REFERENCE_NOT_ALLOWED,
        f"memory://{bucket}/photos/a.jpg?versionId=1": Reason.REFERENCE_INVALID,
    }
    assert {uri: refusal(fetcher, uri) for uri in outcomes} == outcomes
    small = References([f"memory://{bucket}/photos"], max_bytes=4)
    assert refusal(small, f"memory://{bucket}/photos/claim 1/a.jpg") is Reason.PHOTO_TOO_LARGE


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_an_object_store_that_fails_or_hangs_is_down(
    bucket: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    released = threading.Event()

    def broken(*_: object, **__: object) -> bytes:
        if how == "fails":
            raise RuntimeError("endpoint could not be reached")
        released.wait(30)
        return b""

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", broken)
    fetcher = References([f"memory://{bucket}/photos"], timeout=0.2)
    with pytest.raises(DependencyDownError, match=f"references: memory://{bucket}"):
        fetcher.fetch(f"memory://{bucket}/photos/claim 1/a.jpg")
    released.set()


def test_an_empty_object_is_an_empty_photo_and_no_store_that_is_down(
    monkeypatch: pytest.MonkeyPatch, bucket: str
) -> None:
    def refuses(*_: object, **__: object) -> bytes:
        raise OSError(errno.EINVAL, "InvalidRange")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", refuses)
    fetcher = References([f"memory://{bucket}/photos"])
    fsspec.filesystem("memory").pipe_file(f"{bucket}/photos/empty.jpg", b"")
    assert fetcher.fetch(f"memory://{bucket}/photos/empty.jpg") == b""
    with pytest.raises(DependencyDownError, match="InvalidRange"):
        fetcher.fetch(f"memory://{bucket}/photos/claim 1/a.jpg")


def test_a_store_whose_package_is_missing_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(protocol: str) -> type:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ValueError, match="Install s3fs"):
        References(["s3://bucket/photos/"])
