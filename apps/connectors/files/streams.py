"""The bytes of a file, decompressed and in UTF-8, in chunks of bounded size.

What could be decompressed is always handed over before `StreamDamaged` is raised, so that a cut
file costs the records behind the cut and no others.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from apps.connectors.errors import ConnectionLost, MalformedFile
from apps.connectors.files.limits import require_growth
from apps.connectors.files.settings import FilesSettings

CHUNK = 1 << 20
_COMPRESSED_CHUNK = 256 << 10
_ZSTD_CHUNK = 64 << 10


class StreamDamaged(Exception):
    """The stream ends early or is corrupt; the text says how.

    Before a cut all bytes are right. Before the place where corruption shows, some may be wrong.
    """

    def __init__(self, message: str, *, is_cut: bool = False) -> None:
        super().__init__(message)
        self.is_cut = is_cut


def text_chunks(
    file: BinaryIO, compression: str, settings: FilesSettings, where: str
) -> Iterator[bytes]:
    """Chunks of UTF-8. Bytes that the encoding does not know come out as invalid UTF-8.

    Raises StreamDamaged at the end of a damaged stream, ConfigurationError for a file that grows
    further than the settings allow, ConnectionLost when the disk fails.
    """
    encoding = settings.encoding
    try:
        chunks = _decompressed(file, compression)
        if compression:
            chunks = _guarded(chunks, file, settings, where)
        if encoding == "utf-8":
            yield from chunks
        else:
            yield from _transcoded(chunks, encoding)
    except OSError as error:
        raise ConnectionLost(f"reading failed: {error.strerror or error}", where=where) from error


def _decompressed(file: BinaryIO, compression: str) -> Iterator[bytes]:
    if compression == "gzip":
        return _gzip_chunks(file)
    if compression == "zstd":
        return _zstd_chunks(file)
    return iter(lambda: file.read(CHUNK), b"")


def _gzip_chunks(file: BinaryIO) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    started = False
    while data := file.read(_COMPRESSED_CHUNK):
        while data:
            if decoder.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                decoder, started = zlib.decompressobj(wbits=31), False
            try:
                out = decoder.decompress(data, CHUNK)
            except zlib.error:
                raise StreamDamaged("the gzip stream is corrupt from here on") from None
            started = True
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if out:
                yield out
    while not decoder.eof and (rest := _pending(decoder)):
        yield rest
    if started and not decoder.eof:
        raise StreamDamaged("the gzip stream is cut off here", is_cut=True)


def _pending(decoder: zlib._Decompress) -> bytes:
    try:
        return decoder.decompress(b"", CHUNK)
    except zlib.error:
        return b""


class _UnclosedSource:
    """A file for pyarrow, which closes what it has read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        self.closed = True


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
    stream = pa.CompressedInputStream(pa.PythonFile(_UnclosedSource(file), mode="r"), "zstd")
    while True:
        pieces: list[bytes] = []
        damage: StreamDamaged | None = None
        try:
            while sum(map(len, pieces)) < CHUNK:
                piece = stream.read(_ZSTD_CHUNK)
                if not piece:
                    break
                pieces.append(piece)
        except OSError as error:
            if error.errno is not None:
                raise
            cut = "runcated" in str(error)
            how = "cut off here" if cut else "corrupt from here on"
            damage = StreamDamaged(f"the zstd stream is {how}", is_cut=cut)
        if pieces:
            yield b"".join(pieces)
        if damage is not None:
            raise damage
        if not pieces:
            return


def _guarded(
    chunks: Iterator[bytes], file: BinaryIO, settings: FilesSettings, where: str
) -> Iterator[bytes]:
    output, ratio, most = 0, settings.max_compression_ratio, settings.max_decompressed
    for chunk in chunks:
        output += len(chunk)
        require_growth(output, file.tell(), ratio, most, where)
        yield chunk


def _transcoded(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    errors = "surrogatepass" if encoding == "utf-16" else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise StreamDamaged(f"from here on the text is not {encoding}") from None


def transcoded_back(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """UTF-8 chunks, cut anywhere, in the file's encoding; the inverse of `text_chunks`."""
    if encoding == "utf-8":
        yield from chunks
        return
    errors = "surrogatepass" if encoding == "utf-16" else "surrogateescape"
    decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
    encoder = codecs.getincrementalencoder(encoding)(errors)
    for chunk in chunks:
        yield encoder.encode(decoder.decode(chunk))


def verify(chunks: Iterator[bytes], where: str) -> None:
    """Run through a compressed file. Raises MalformedFile when it is corrupt, not if it is cut.

    Checksums stand at the end of a stream: without this a flipped bit would pass as a value. A
    zstd stream may have been written without one; then only a broken structure shows.
    """
    try:
        for _ in chunks:
            pass
    except StreamDamaged as damage:
        if not damage.is_cut:
            raise MalformedFile(
                f"the file's compression is corrupt: {damage}", where=where
            ) from None
