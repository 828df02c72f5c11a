"""The web application: API, page, and one shape for all errors."""

import os
from typing import Any, Collection, Optional

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from ..errors import VIFError
from .guard import Guard
from .routes import build_router
from .service import Service

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")


def create_app(
    service: Service, hosts: Optional[Collection[str]] = None, threads: Optional[int] = None
) -> Guard:
    """The ASGI application of a service.

    Args:
        service: what it serves.
        hosts: names that requests may be for; None: any.
        threads: searches and decodings at a time; None: the cores, at most 8.
    """
    app = FastAPI(title="vif serve", docs_url=None, redoc_url=None)  # these pages would load from a CDN
    app.include_router(build_router(service, threads or min(8, os.cpu_count() or 1)))
    # not a mount, which would answer before the API's own 405
    app.router.default = StaticFiles(directory=PAGE, html=True)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        message = error.detail
        if error.status_code == 404 and message == "Not Found":
            message = f"there is nothing at {request.url.path}."
        return _error(error.status_code, message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        parts = [f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()]
        return _error(422, "; ".join(parts) + ".")

    @app.exception_handler(VIFError)
    async def impossible(request: Request, error: VIFError) -> JSONResponse:
        return _error(422, str(error))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        return _error(500, "the server failed; its terminal says why.")

    return Guard(app, hosts)


def _error(status: int, message: Any, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": str(message)}, status, headers)
