"""A slow network on one machine: a proxy on loopback that adds latency and limits bandwidth."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 16 * 1024


@dataclass(slots=True)
class SlowLink:
    """An address on loopback behind which a server seems far away.

    round_trip: seconds added to a question and its answer together, half to either;
    bytes_per_second: how much passes in each direction, all connections together.
    """

    host: str
    port: int
    round_trip: float
    bytes_per_second: float
    received: int = 0  # bytes that came from the server
    sent: int = 0
    local_port: int = 0
    _free: dict[str, float] = field(default_factory=dict)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs_reader, theirs_writer = await asyncio.open_connection(self.host, self.port)
        with suppress(asyncio.CancelledError):  # the link is closed
            await asyncio.gather(
                self._carry(reader, theirs_writer, "sent"),
                self._carry(theirs_reader, writer, "received"),
            )

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        """Pass bytes on, each chunk when it has crossed the wire; several are on their way."""
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=64)
        deliverer = asyncio.create_task(self._deliver(on_the_way, writer))
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                setattr(self, way, getattr(self, way) + len(data))
                begins = max(self._free.get(way, 0.0), loop.time())
                self._free[way] = begins + len(data) / self.bytes_per_second
                await on_the_way.put((self._free[way] + self.round_trip / 2, data))
        await on_the_way.put((0.0, b""))
        await deliverer

    async def _deliver(
        self, on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while True:
                due, data = await on_the_way.get()
                if not data:
                    break
                await asyncio.sleep(max(due - loop.time(), 0))
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def slow_link(
    host: str, port: int, *, round_trip: float, bytes_per_second: float = 1e9
) -> Iterator[SlowLink]:
    """Open the link; its `local_port` on 127.0.0.1 leads to the server."""
    link = SlowLink(host, port, round_trip, bytes_per_second)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(link._accept, "127.0.0.1", 0), loop
    ).result()
    link.local_port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(server: asyncio.AbstractServer) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
