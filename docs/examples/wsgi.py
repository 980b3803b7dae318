"""A service behind msl-hsm, with WSGI: python3 wsgi.py [PORT]"""

import sys
from urllib.parse import unquote
from wsgiref.simple_server import make_server


def app(environ, start_response):
    data = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    device = unquote(environ["HTTP_MSL_ENTITY"])
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{device} sent {len(data)} bytes\n".encode()]


with make_server("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 3000, app) as server:
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
