"""An uploaded image: read into memory up to a limit, never written to disk."""

from typing import AsyncGenerator, AsyncIterator

import anyio
from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

SECONDS = 60.0  # for an upload to arrive
_FRAME = 4096  # bytes of a form around its file
_MIB = 1 << 20


async def read_upload(request: Request, limit: int) -> bytes:
    """The file `image` of a multipart form.

    Args:
        request: its body is not read yet.
        limit: most bytes of the file; reading stops there, whatever Content-Length says.

    Raises:
        HTTPException: 400 no such form, 408 too slow, 413 too large, 415 no form.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "send the image as the file `image` of a form, multipart/form-data.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit + _FRAME:
        raise _too_large(limit)
    parser = MultiPartParser(request.headers, _limited(request.stream(), limit), max_files=1, max_fields=0)
    parser.spool_max_size = limit + _FRAME  # above it a file would go to disk
    try:
        with anyio.fail_after(SECONDS):
            form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the upload took longer than {SECONDS:.0f} seconds.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the upload broke off.") from error
    file = form.get("image")
    if not isinstance(file, UploadFile):
        raise HTTPException(400, "the form has no file named `image`.")
    data = await file.read()
    if len(data) > limit:
        raise _too_large(limit)
    return data


async def _limited(chunks: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes, None]:
    left = limit + _FRAME
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the image is larger than {limit / _MIB:g} MiB (--max-upload-mib).")
