"""The HTTP API: addresses below /api."""

import contextlib
from typing import Annotated, Any, Callable, Dict, Iterator

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, HTTPException, Query, Request, Response

from ..errors import VIFError
from .crops import MAX_SIDE
from .parameters import Browse, Number, Search, Similar
from .service import Service
from .upload import read_upload

UPLOADS = 16  # that are read or wait for the network at a time
_FORM = {"type": "object", "required": ["image"]}
_FORM["properties"] = {"image": {"type": "string", "format": "binary"}}  # type: ignore[assignment]
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}}


def build_router(service: Service, threads: int) -> APIRouter:
    """The routes of one service.

    Args:
        service: asked outside the event loop, but for one row's metadata, which takes no time.
        threads: searches and decodings at a time.
    """
    api = APIRouter(prefix="/api")
    limiter, uploads = anyio.CapacityLimiter(threads), anyio.CapacityLimiter(UPLOADS)

    async def work(function: Callable[..., Any], *arguments: Any) -> Any:
        return await run_sync(function, *arguments, limiter=limiter)

    @api.get("/gallery")
    async def gallery() -> Dict[str, Any]:
        """What the gallery is, and what can be asked of it."""
        return dict(await work(service.info))

    @api.get("/rows")
    async def rows(asked: Annotated[Browse, Query()]) -> Dict[str, Any]:
        """Rows in the order they came, a page of them."""
        page = (asked.filter(), asked.find, asked.offset, asked.limit)
        total, found = await work(service.catalogue.page, *page)
        return {"total": total, "offset": asked.offset, "rows": found}

    @api.get("/rows/{id}")
    async def row(id: Number) -> Dict[str, Any]:
        """One row."""
        with _refused(404):
            return service.catalogue.row(id)

    @api.get("/similar/{id}")
    async def similar(id: Number, asked: Annotated[Similar, Query()]) -> Dict[str, Any]:
        """The nearest other rows of a row."""
        with _refused(404):
            query = service.catalogue.row(id)
        found = await work(service.similar, id, asked.k, asked.filter(asked.other_cameras))
        return {"query": query, "neighbours": found}

    @api.post("/search", openapi_extra=_BODY)
    async def search(request: Request, asked: Annotated[Search, Query()]) -> Dict[str, Any]:
        """The nearest rows of an uploaded image."""
        if service.predictor is None:
            raise HTTPException(
                503,
                "there is no network here to read images with: start `vif serve` with --config-file and "
                "--weights, or with --onnx.",
            )
        where = asked.filter(asked.other_cameras)
        if asked.other_cameras and asked.query_camid is None:
            raise HTTPException(422, "other_cameras needs query_camid, the camera of the image.")
        try:
            uploads.acquire_on_behalf_of_nowait(request)
        except anyio.WouldBlock:
            raise HTTPException(503, "busy with other uploads; try again in a moment.") from None
        try:
            image = await read_upload(request, service.max_upload)
            found = await work(service.search, image, asked.k, where, asked.query_camid)
        finally:
            uploads.release_on_behalf_of(request)
        return {"query": None, "neighbours": found}

    @api.get("/image/{id}", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
    async def image(id: Number, size: Annotated[int, Query(ge=16, le=MAX_SIDE)] = MAX_SIDE) -> Response:
        """The image of a row as JPEG, its longer side at most `size` pixels."""
        with _refused(404):
            path = service.catalogue.row(id)["path"]
            if service.crops is None:
                raise HTTPException(404, "this gallery names no folder of images; start it with --root.")
            return Response(await work(service.crops.jpeg, path, size), media_type="image/jpeg")

    return api


@contextlib.contextmanager
def _refused(status: int) -> Iterator[None]:
    """The project's own errors become answers with this status."""
    try:
        yield
    except VIFError as error:
        raise HTTPException(status, str(error)) from error
