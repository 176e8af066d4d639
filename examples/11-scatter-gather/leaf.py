"""A leaf: searches its part of a text. Which part is said by who asks, so leaves are alike, and any number of them will do."""

import http.server
import json
import os
import signal
import sys
import urllib.parse

TEXT = "/usr/share/common-licenses/GPL-3"
LINES = open(TEXT, encoding="utf-8").read().splitlines()


class Leaf(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        part, parts, word = int(query.get("part", 0)), int(query.get("parts", 1)), query.get("word", "")
        mine = range(part, len(LINES), parts)
        found = [[number + 1, LINES[number].strip()] for number in mine if word in LINES[number]]
        body = json.dumps({"leaf": os.uname().nodename, "searched": len(mine), "found": found}).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        """Nothing to say about each."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.ThreadingHTTPServer(("", 8080), Leaf).serve_forever()
