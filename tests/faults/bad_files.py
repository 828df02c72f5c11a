"""Files under an image's name that no image can be read from."""

import os
import struct
import zlib


def png(width, height):
    """A whole PNG of one colour, packed to next to nothing: `width` x `height` black pixels of one bit."""
    packer = zlib.compressobj(9)
    line = b"\0" * (1 + -(-width // 8))
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.parent / "gone")


def folder(path):
    path.unlink()
    path.mkdir()


KINDS = {
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:400]), "cannot be decoded"),
    "empty": (lambda path: path.write_bytes(b""), "empty file"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 4), "cannot be decoded"),
    "text": (lambda path: path.write_text("this is no image\n"), "cannot be decoded"),
    "bomb": (lambda path: path.write_bytes(png(20_000, 20_000)), "too large to be a photo"),
    "pipe": (pipe, "no regular file"),
    "link to nothing": (link_to_nothing, "No such file"),
    "folder": (folder, "Is a directory"),
    "gone": (lambda path: path.unlink(), "No such file"),
}
