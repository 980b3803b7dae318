"""A program before msl-hsm agent that posts a file as a web browser does: it tells the
length, sends everything, and only then reads. It prints the answer.

    python3 upload.py /run/msl-hsm.sock FILE
    python3 upload.py 127.0.0.1:8090 FILE
"""

import os
import shutil
import socket
import sys
from http.client import HTTPConnection

place, path = sys.argv[1:]


class SocketConnection(HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(place)


agent = SocketConnection("agent") if "/" in place else HTTPConnection(place)
with open(path, "rb") as data:
    agent.request("POST", "/", data, {"Content-Length": str(os.path.getsize(path))})
answer = agent.getresponse()
if answer.status != 200:
    sys.exit(f"HTTP {answer.status}: {answer.read().decode()}")
shutil.copyfileobj(answer, sys.stdout.buffer)
