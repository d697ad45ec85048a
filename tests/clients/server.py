"""Receives with the MLLP server of python-hl7, stores each message under its control id, acknowledges it with AA.

usage: server.py DIRECTORY        prints the address it listens on
"""

import asyncio
import pathlib
import sys

from hl7.mllp import start_hl7_server

# asyncio's default of 64 KiB for one frame is too small for a document.
LIMIT = 64 * 2**20


async def main() -> None:
    directory = pathlib.Path(sys.argv[1])

    async def serve(reader, writer) -> None:
        while not writer.is_closing():
            try:
                message = await reader.readmessage()
            except asyncio.IncompleteReadError:
                break
            control_id = str(message.segment("MSH")[10])
            # Text form of the parsed message: python-hl7 keeps every byte of what it can parse.
            (directory / control_id).write_bytes(str(message).encode("utf-8"))
            writer.writemessage(message.create_ack(ack_code="AA"))
            await writer.drain()
        writer.close()

    server = await start_hl7_server(serve, "127.0.0.1", 0, limit=LIMIT, encoding="utf-8")
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
