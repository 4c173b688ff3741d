"""`vitscratch demo`: a small web page that says what is on a picture, and what the model looked at."""

import json
import os
import sys
from base64 import b64encode
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vitscratch.cli.common import Common, Device, pick_device
from vitscratch.cli.predict import unique

if TYPE_CHECKING:
    from vitscratch.weights import SavedModel

HOST = "127.0.0.1"  # this machine alone: nothing here is meant for the internet
MAX_UPLOAD = 20 * 2**20  # bytes
MAX_PIXELS = 50_000_000  # of a picture, decoded: 150 MB
PATIENCE = 30.0  # seconds for the next bytes of a request
TOP = 5  # classes to name
PAGE = Path(__file__).with_name("demo.html")


@dataclass(kw_only=True)
class Demo(Common):
    """Serve a web page on this machine, for it alone: upload a picture, and see its likeliest classes and the attention
    rollout. Ctrl-C ends it."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """As for predict: folder of a run, file or folder of weights, "timm:NAME", "hf:ORG/NAME", or the name of weights
    that come with the package."""

    port: int = 8000
    """Where to listen; 0 for any free port."""

    num_heads: int | None = None
    """As for predict: how many heads the model was trained with, if nothing says so."""

    pool: Literal["cls", "mean"] | None = None
    """As for predict: what the head reads, if the weights do not say so."""

    device: Device = "auto"
    """Where to compute."""

    def run(self) -> int:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"--port {self.port}: expected 0 (any free one) to 65535")
        device = pick_device(self.device)

        from vitscratch.weights import build_from

        saved = build_from(self.model, num_heads=self.num_heads, pool=self.pool)
        for note in saved.provenance.get("notes", ()):
            print(f"vitscratch: {self.model}: {note}", file=sys.stderr)
        with make_server(saved, self.port, device) as server:
            print(f"{self.model}: http://{HOST}:{server.server_port} (Ctrl-C ends it)", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("\nstopped")
        return 0


class Onlooker:
    """What the page asks: the classes of a picture, and where the model looked; one picture at a time.

    Args:
        saved: as from `build_from`; its model is moved to the device.

    Raises:
        ValueError: the weights do not say how their pictures were prepared.
    """

    def __init__(self, saved: "SavedModel", device: str) -> None:
        from vitscratch.data import Preprocessing

        if not saved.preprocessing:
            raise ValueError("these weights do not say how their pictures were prepared; `vitscratch convert` keeps it")
        self.model, self.device = saved.model.to(device), device
        self.preprocessing = Preprocessing.from_dict(saved.preprocessing)
        self.class_names = unique(saved.class_names)
        self.lock = Lock()  # a picture may take 150 MB, and the model's hooks serve one pass at a time

    def look(self, data: bytes) -> dict[str, Any]:
        """Classes with probabilities, the picture as the model sees it (a data: URL), and the rollout's gaze on it.

        Raises:
            PictureError: the bytes are no picture, or too large a one.
        """
        import torch

        from vitscratch.data import open_picture
        from vitscratch.data.pictures import as_picture
        from vitscratch.explain import attention_rollout, gaze, record_attention

        with self.lock:
            picture = open_picture(data, channels=self.preprocessing.channels, max_pixels=MAX_PIXELS)
            image = self.preprocessing.to_tensor(picture)
            with torch.inference_mode(), record_attention(self.model) as recorded:
                probabilities = self.model(image[None].to(self.device)).float().softmax(dim=1)[0].cpu()
        looks = gaze(attention_rollout(torch.stack(list(recorded.values())).float()), self.model.pool)[0].cpu()
        values, numbers = probabilities.topk(min(TOP, len(probabilities)))
        png = BytesIO()
        as_picture(self.preprocessing.denormalise(image)).save(png, "PNG")
        return {
            "classes": [[self.class_names[i], p] for i, p in zip(numbers.tolist(), values.tolist(), strict=True)],
            "picture": f"data:image/png;base64,{b64encode(png.getvalue()).decode()}",
            "rollout": looks.unflatten(0, self.model.patch_embed.grid_size).tolist(),
        }


class Handler(BaseHTTPRequestHandler):
    """GET / is the page; POST /look, with the bytes of a picture as body, answers with JSON or one line of text."""

    timeout = PATIENCE
    onlooker: Onlooker

    def do_GET(self) -> None:
        """The page."""
        if not self._is_local():
            return
        if self.path != "/":
            self._answer(HTTPStatus.NOT_FOUND, "there is one page here: /")
        else:
            self._answer(HTTPStatus.OK, PAGE.read_text(encoding="utf-8"), "text/html")

    def do_HEAD(self) -> None:
        """What GET would answer, without its body."""
        self.do_GET()

    def do_POST(self) -> None:
        """A picture."""
        from vitscratch.data import PictureError

        if not self._is_local():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/look":
            self._answer(HTTPStatus.NOT_FOUND, "pictures go to /look")
        elif not (length.isascii() and length.isdigit() and len(length) < 20):
            self._answer(HTTPStatus.LENGTH_REQUIRED, "say in Content-Length how many bytes the picture has")
        elif int(length) > MAX_UPLOAD:
            problem = f"too large: {int(length):,} bytes are over the limit of {MAX_UPLOAD:,}"
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, problem)
            self._discard(min(int(length), 10 * MAX_UPLOAD))
        elif len(data := self.rfile.read(int(length))) < int(length):
            self._answer(HTTPStatus.BAD_REQUEST, f"the picture broke off after {len(data):,} of {int(length):,} bytes")
        elif self.headers.get_content_type() == "multipart/form-data":
            problem = "a form came; send the bytes of the picture alone: curl --data-binary @FILE, not -F"
            self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, problem)
        else:
            try:
                self._answer(HTTPStatus.OK, json.dumps(self.onlooker.look(data)), "application/json")
            except PictureError as error:
                self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, " ".join(str(error).split()))
            except (RuntimeError, MemoryError) as error:  # a GPU whose memory is full, say
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"failed: {' '.join(str(error).split())}")

    def _discard(self, length: int) -> None:
        """Read what is still coming: a browser that cannot get rid of its picture does not look at the answer."""
        while length > 0 and (data := self.rfile.read(min(length, 2**16))):
            length -= len(data)

    def _is_local(self) -> bool:
        """Whether this page itself asked, under a name of this machine: all else is another site's trick to get in."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        local = host.partition(":")[0] in (HOST, "localhost") and origin in (None, f"http://{host}")
        if not local:
            self._answer(HTTPStatus.FORBIDDEN, f"this page answers at http://{HOST}:{self.server.server_port} alone")  # type: ignore[attr-defined]
        return local

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        # Whatever a class is called, nothing is fetched from elsewhere and nothing but the page's own script runs.
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
        policy += "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: the page shows what went wrong to who did it."""


class Server(ThreadingHTTPServer):
    """A thread for each request; a browser that goes away is no error."""

    allow_reuse_address = os.name == "posix"  # on Windows it would let two programs have one port

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of all others there is a traceback on stderr."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def make_server(saved: "SavedModel", port: int, device: str = "cpu") -> Server:
    """The demo's server, listening but not yet serving.

    Raises:
        ValueError: the port is taken or not open to this user, or weights that do not say how to prepare pictures.
    """
    handler = type("Handler", (Handler,), {"onlooker": Onlooker(saved, device)})
    try:
        return Server((HOST, port), handler)
    except OSError as error:
        raise ValueError(f"--port {port} cannot be used ({error.strerror}); name another one, or 0 for any") from error
