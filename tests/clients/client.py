"""Sends every file of a directory with the MLLP client of python-hl7, and prints file name and acknowledgement code.

usage: client.py HOST PORT DIRECTORY        files are named NUMBER_CONTROLID.hl7
"""

import pathlib
import sys

import hl7
from hl7.client import MLLPClient


def main() -> int:
    host, port, directory = sys.argv[1:]
    files = sorted(pathlib.Path(directory).glob("*.hl7"))
    failed = 0
    with MLLPClient(host, int(port)) as client:
        client.socket.settimeout(30)
        for path in files:
            control_id = path.stem.split("_", 1)[1]
            # The message as bytes: what is sent is what was read, not what was parsed.
            answer = exchange(client, path.read_bytes())
            acknowledgement = hl7.parse(answer.decode("utf-8"))
            code = str(acknowledgement.segment("MSA")[1])
            failed += str(acknowledgement.segment("MSA")[2]) != control_id or code != "AA"
            print(path.name, code, flush=True)
    return 1 if failed else 0


def exchange(client: MLLPClient, message: bytes) -> bytes:
    """One frame out, one frame in. The client's own `send` hands over and reads a single piece each."""
    client.socket.sendall(b"\x0b" + message + b"\x1c\x0d")
    answer = b""
    while not answer.endswith(b"\x1c\x0d"):
        piece = client.socket.recv(4096)
        if not piece:
            raise ConnectionError("closed before a whole acknowledgement")
        answer += piece
    return answer[1:-2]


if __name__ == "__main__":
    sys.exit(main())
