"""Sends every file of a directory with the MLLP client of python-hl7, and prints file name and acknowledgement code.

usage: client.py HOST PORT DIRECTORY
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
            message = path.read_bytes()
            control_id = message.split(b"|")[9].decode()
            # The message as bytes: what is sent is what was read, not what was parsed.
            answer = receive(client, message)
            acknowledgement = hl7.parse(answer.decode("utf-8"))
            code = str(acknowledgement.segment("MSA")[1])
            failed += str(acknowledgement.segment("MSA")[2]) != control_id or code != "AA"
            print(path.name, code, flush=True)
    return 1 if failed else 0


def receive(client: MLLPClient, message: bytes) -> bytes:
    """One frame out, one frame in; the client itself reads a single piece of at most 4 kB."""
    answer = client.send(b"\x0b" + message + b"\x1c\x0d")
    while not answer.endswith(b"\x1c\x0d"):
        piece = client.socket.recv(4096)
        if not piece:
            raise ConnectionError("closed within an acknowledgement")
        answer += piece
    return answer[1:-2]


if __name__ == "__main__":
    sys.exit(main())
