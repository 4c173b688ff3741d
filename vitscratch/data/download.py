"""Downloads that may break off."""

import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

CHUNK = 2**20  # bytes
TIMEOUT = 30.0  # seconds without a byte


def download(address: str, path: Path) -> None:
    """Fetch a file, with a bar on a terminal. Bytes that an earlier try left at `path` are not fetched again.

    What arrives is not checked here; a server that does not continue files sends the whole one.

    Raises:
        OSError: no network, no such file, or it broke off; what came is still at `path`.
    """
    from tqdm import tqdm

    there = path.stat().st_size if path.exists() else 0
    headers = {"User-Agent": "vitscratch"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        response = urlopen(Request(address, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and there:  # nothing lies beyond: it was complete
            return
        raise
    with response:
        if response.status != 206:  # the server begins at the beginning
            there = 0
        expected = there + int(response.headers.get("Content-Length", 0))
        bar = tqdm(
            desc=path.name, total=expected or None, initial=there, unit="B", unit_scale=True,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        with bar, path.open("ab" if there else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if path.stat().st_size < expected:
        raise OSError(f"the connection broke off after {path.stat().st_size:,} of {expected:,} bytes; try again")
