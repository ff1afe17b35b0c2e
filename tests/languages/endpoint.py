"""One HTTP endpoint for tests/languages/run: endpoint.py NAME DELAY.

Prints its address, then answers every request after DELAY seconds. The header `x-endpoint` of the answer is NAME, and
the body has the request's headers, one in a line.
"""
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, DELAY = sys.argv[1], float(sys.argv[2])


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: the second must not wait for the first to be acknowledged.
    disable_nagle_algorithm = True

    def do_GET(self):
        time.sleep(DELAY)
        body = "".join(f"{name.lower()}: {value}\n" for name, value in self.headers.items()).encode()
        self.send_response(200)
        self.send_header("x-endpoint", NAME)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
print("127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
