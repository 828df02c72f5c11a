"""A web page and an HTTP API over a gallery; needs the extra `serve` (FastAPI, uvicorn, python-multipart)."""
