"""The scripts and styles of the pages, which come with the package."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from starlette.responses import Response

STATIC_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def static_file(name: str) -> Response:
    """Answer with a file; with 404 if there is none of this name."""
    if name not in _STATIC:
        return Response("no such file", 404, media_type="text/plain")
    headers = {"Cache-Control": "public, max-age=31536000", "X-Content-Type-Options": "nosniff"}
    return Response(_STATIC[name], media_type=STATIC_TYPES[Path(name).suffix], headers=headers)


def _read_static_files() -> dict[str, bytes]:
    folder = files("llmrec").joinpath("serve", "static")
    found = (one for one in folder.iterdir() if Path(one.name).suffix in STATIC_TYPES)
    return {one.name: one.read_bytes() for one in found}


_STATIC = _read_static_files()
# A file that changes gets another address, so that browsers may keep it for good.
STATIC_ADDRESSES = {
    name: f"/static/{name}?v={sha256(content).hexdigest()[:8]}" for name, content in _STATIC.items()
}
