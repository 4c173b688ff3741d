"""`vitscratch demo`: the server on a free port, asked as a browser asks."""

import base64
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from PIL import Image

from tests.data.make import encoded, picture
from vitscratch import VisionTransformer, attention_maps
from vitscratch.cli import demo, main
from vitscratch.config import ViTConfig
from vitscratch.data import Preprocessing, open_picture
from vitscratch.explain import attention_rollout, gaze
from vitscratch.parity import awaken
from vitscratch.weights import SavedModel, save_model

PREPROCESSING = Preprocessing((6, 9), 3, (0.3, 0.4, 0.5), (0.2, 0.3, 0.4))
NAMES = ("cat", "<script>alert(1)</script>", "eel", "cat", "ox", "yak", "ant")


def make_model(pool: Literal["cls", "mean"] = "cls") -> SavedModel:
    torch.manual_seed(3)
    config = ViTConfig((6, 9), 3, 3, 7, embed_dim=10, depth=2, num_heads=2, mlp_dim=11, pool=pool)
    model = VisionTransformer.from_config(config).eval()
    awaken(model)
    return SavedModel(model, config, NAMES, PREPROCESSING.to_dict(), {})


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with demo.make_server(make_model(), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: ThreadingHTTPServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection(demo.HOST, server.server_port, timeout=60)
    try:
        connection.request(method, path, body, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def test_a_picture_gets_its_classes_and_its_rollout(server: ThreadingHTTPServer) -> None:
    file = encoded(picture(5, (31, 17)))
    response, text = ask(server, "POST", "/look", file)
    assert response.status == 200 and response.headers["Content-Type"].startswith("application/json")
    answer, saved = json.loads(text), make_model()
    image = PREPROCESSING.to_tensor(open_picture(file))[None]
    with torch.no_grad():
        values, numbers = saved.model(image)[0].softmax(0).topk(5)
    unique = ("cat (0)", NAMES[1], "eel", "cat (3)", "ox", "yak", "ant")
    assert [name for name, _ in answer["classes"]] == [unique[i] for i in numbers]
    assert [value for _, value in answer["classes"]] == pytest.approx(values.tolist(), abs=1e-5)
    expected = gaze(attention_rollout(attention_maps(saved.model, image)))[0].view(2, 3)
    torch.testing.assert_close(torch.tensor(answer["rollout"]), expected)
    with Image.open(io.BytesIO(base64.b64decode(answer["picture"].removeprefix("data:image/png;base64,")))) as shown:
        assert shown.size == (9, 6)
        assert list(shown.convert("RGB").tobytes()) == pytest.approx(
            list(PREPROCESSING.pixels(open_picture(file)).permute(1, 2, 0).flatten().tolist()), abs=1
        )


def test_the_rollout_is_that_of_what_the_head_reads() -> None:
    saved, file = make_model("mean"), encoded(picture(5, (31, 17)))
    maps = attention_maps(saved.model, PREPROCESSING.to_tensor(open_picture(file))[None])
    expected = gaze(attention_rollout(maps), "mean")[0].view(2, 3)
    torch.testing.assert_close(torch.tensor(demo.Onlooker(saved, "cpu").look(file)["rollout"]), expected)


def test_the_page_needs_nothing_from_elsewhere(server: ThreadingHTTPServer) -> None:
    response, text = ask(server, "GET", "/")
    assert response.status == 200 and text == demo.PAGE.read_text()
    assert not re.search(r"https?:|//[a-z]|src=|@import|url\(", text.replace("  // ", ""))
    assert "innerHTML" not in text  # names of classes are shown as text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    sources = {source for directive in policy.split(";") for source in directive.split()[1:]}
    assert sources == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", [demo.HOST, "localhost"])
def test_the_page_may_ask_under_each_name_of_this_machine_also_at_the_port_that_browsers_leave_out(
    name: str, server: ThreadingHTTPServer
) -> None:
    for host in (name, f"{name}:{server.server_port}"):
        assert ask(server, "GET", "/", Host=host)[0].status == 200
        assert ask(server, "POST", "/look", b"", Host=host, Origin=f"http://{host}")[0].status == 415
        assert ask(server, "POST", "/look", b"", Host=host, Origin="null")[0].status == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "line"),
    [
        ("POST", "/look", b"no picture at all", {}, 415, "no picture: it holds text"),
        ("POST", "/look", b"", {}, 415, "empty: 0 bytes"),
        ("POST", "/look", encoded(picture(1))[:-90], {}, 415, "cannot be decoded: "),
        ("POST", "/look", None, {"Content_Length": "999999999999"}, 413, "too large: 999,999,999,999 bytes are over"),
        ("POST", "/look", None, {"Content_Length": "-1"}, 411, "say in Content-Length how many bytes"),
        ("POST", "/look", None, {"Content_Length": "²"}, 411, "say in Content-Length how many bytes"),
        ("POST", "/other", b"x", {}, 404, "pictures go to /look"),
        ("GET", "/../demo.py", None, {}, 404, "there is one page here: /"),
        ("GET", "/", None, {"Host": "elsewhere.example:80"}, 403, "this page answers at http://127.0.0.1:"),
        ("POST", "/look", b"x", {"Host": "elsewhere.example"}, 403, "this page answers at http://127.0.0.1:"),
        ("POST", "/look", b"x", {"Origin": "https://elsewhere.example"}, 403, "this page answers at http://127.0.0.1:"),
        ("POST", "/look", None, {"Content_Length": "9" * 5000}, 411, "say in Content-Length how many bytes"),
    ],
)
def test_what_is_refused_gets_one_line(
    server: ThreadingHTTPServer,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
    status: int,
    line: str,
) -> None:
    response, text = ask(server, method, path, body, **headers)
    assert response.status == status and text.startswith(line) and "\n" not in text
    assert response.headers["Content-Type"].startswith("text/plain")
    assert ask(server, "GET", "/")[0].status == 200  # and it goes on


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "MAX_PIXELS", 31 * 17 - 1)
    response, text = ask(server, "POST", "/look", encoded(picture(5, (31, 17))))
    assert response.status == 415 and text == "too large: 31 x 17 px is over the limit of 526 px"


def test_an_upload_that_is_too_large_is_taken_to_its_end_so_that_the_browser_reads_the_answer(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "MAX_UPLOAD", 1_000_003)
    response, text = ask(server, "POST", "/look", bytes(8_000_017))  # more than a socket holds
    assert response.status == 413 and text == "too large: 8,000,017 bytes are over the limit of 1,000,003"


def test_a_model_that_fails_is_one_line(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory\non the GPU")

    monkeypatch.setattr(server.RequestHandlerClass.onlooker.model, "forward", full)  # type: ignore[attr-defined]
    response, text = ask(server, "POST", "/look", encoded(picture(5)))
    assert response.status == 500 and text == "failed: out of memory on the GPU"


def test_an_upload_that_breaks_off_is_no_picture(server: ThreadingHTTPServer) -> None:
    import socket

    with socket.create_connection((demo.HOST, server.server_port), timeout=60) as line:
        line.sendall(b"POST /look HTTP/1.0\r\nHost: 127.0.0.1:1\r\nContent-Length: 1000\r\n\r\nonly this")
        line.shutdown(socket.SHUT_WR)
        assert b"the picture broke off after 9 of 1,000 bytes" in line.makefile("rb").read()


def test_who_sends_nothing_is_not_waited_for_without_an_end(
    server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    assert server.RequestHandlerClass.timeout == demo.PATIENCE  # type: ignore[attr-defined]
    monkeypatch.setattr(server.RequestHandlerClass, "timeout", 0.05)
    with socket.create_connection((demo.HOST, server.server_port), timeout=60) as line:
        line.sendall(b"POST /look HTTP/1.0\r\nHost: 127.0.0.1:1\r\nContent-Length: 1000\r\n\r\nonly this")
        assert line.makefile("rb").read() == b""  # closed from there


@pytest.mark.parametrize("error", [ConnectionResetError, BrokenPipeError, ZeroDivisionError])
def test_only_a_browser_that_went_away_is_no_error(
    error: type[Exception], server: ThreadingHTTPServer, capsys: pytest.CaptureFixture
) -> None:
    try:
        raise error
    except error:
        server.handle_error(None, (demo.HOST, 1))  # type: ignore[arg-type]
    assert ("Traceback" in capsys.readouterr().err) == (error is ZeroDivisionError)


def test_several_at_once_do_not_mix_their_answers(server: ThreadingHTTPServer) -> None:
    files = [encoded(picture(i, (19, 13))) for i in range(5)]
    alone = [ask(server, "POST", "/look", file)[1] for file in files]
    together: dict[int, str] = {}

    def one(i: int) -> None:
        together[i] = ask(server, "POST", "/look", files[i])[1]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[i] for i in range(5)] == alone and len(set(alone)) == 5


def write(saved: SavedModel, path: Path) -> str:
    save_model(path, saved.model, saved.config, saved.class_names, saved.preprocessing, {})
    return str(path)


def test_a_port_that_is_taken_is_one_line(
    server: ThreadingHTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = write(make_model(), tmp_path / "model.safetensors")
    assert main(["demo", model, "--port", str(server.server_port)]) == 2
    printed = capsys.readouterr()
    assert f"--port {server.server_port} cannot be used (Address already in use)" in printed.err
    assert printed.err.count("\n") == 1 and printed.out == ""


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_cannot_be_is_refused_before_any_work(port: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["demo", "absent", "--port", port]) == 2
    assert f"--port {port}: expected 0 (any free one) to 65535" in capsys.readouterr().err


def test_weights_that_do_not_say_how_pictures_are_prepared_are_refused() -> None:
    saved = make_model()
    with pytest.raises(ValueError, match="do not say how their pictures were prepared"):
        demo.make_server(SavedModel(saved.model, saved.config, NAMES, {}, {}), 0)


def test_a_form_is_told_how_to_send_a_picture_and_head_is_get_without_its_body(server: ThreadingHTTPServer) -> None:
    response, text = ask(server, "POST", "/look", b"--x\r\n", Content_Type="multipart/form-data; boundary=x")
    assert response.status == 415 and "curl --data-binary @FILE" in text
    response, text = ask(server, "HEAD", "/")
    assert response.status == 200 and text == "" and int(response.getheader("Content-Length") or 0) > 1000


def test_what_is_known_of_the_weights_is_said_before_they_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    saved = make_model()
    told = SavedModel(saved.model, saved.config, NAMES, {}, {"notes": ["its head is drawn at random"]})
    monkeypatch.setattr("vitscratch.weights.build_from", lambda *_, **__: told)
    assert main(["demo", "some", "--port", "0", "--device", "cpu"]) == 2
    note, refusal = capsys.readouterr().err.splitlines()
    assert note == "vitscratch: some: its head is drawn at random"
    assert "these weights do not say how their pictures were prepared; `vitscratch convert` keeps it" in refusal


def test_a_browser_that_goes_away_is_no_error_and_a_mistake_of_ours_is(
    server: ThreadingHTTPServer, capsys: pytest.CaptureFixture
) -> None:
    for error in (ConnectionResetError("gone"), KeyError("ours")):
        try:
            raise error
        except Exception:
            server.handle_error(None, (demo.HOST, 1))  # type: ignore[arg-type]
    printed = capsys.readouterr().err
    assert "KeyError: 'ours'" in printed and "gone" not in printed and printed.count("Traceback") == 1


def test_options_reach_the_model_and_its_notes_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    saved, asked = replace(make_model(), provenance={"notes": ["beware"]}), list[Any]()

    def build(name: str, **options: Any) -> SavedModel:
        asked.append((name, options))
        return saved

    def serve(*arguments: Any) -> None:
        asked.append(arguments)
        raise ValueError("no server in this test")

    monkeypatch.setattr("vitscratch.weights.build_from", build)
    monkeypatch.setattr(demo, "make_server", serve)
    options = ["--port", "0", "--num-heads", "5", "--pool", "mean", "--device", "cpu"]
    assert main(["demo", "some", *options]) == 2
    assert asked == [("some", {"num_heads": 5, "pool": "mean"}), (saved, 0, "cpu")]
    assert "vitscratch: some: beware\n" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    model = write(make_model(), tmp_path / "model.safetensors")
    command = [sys.executable, "-m", "vitscratch", "demo", model, "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job may ignore it
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        said = process.stdout.readline()  # once it listens
        port = int(re.search(r"http://127\.0\.0\.1:(\d+) ", said)[1])  # type: ignore[index]
        connection = http.client.HTTPConnection(demo.HOST, port, timeout=60)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.stdout.read() == "\nstopped\n" and process.stderr.read() == ""
