"""The root: takes a question, asks all leaves at once, each for its part, and makes one answer of theirs.

Who the leaves are is asked of DNS for each question: the name of a Service without an address (clusterIP: None) has the
addresses of all its ready Pods. So more leaves are used as soon as they are ready, and nobody has to be told.
"""

import concurrent.futures
import http.server
import json
import signal
import socket
import sys
import urllib.parse
import urllib.request

LEAVES, PORT = "leaf", 8080
PATIENCE = 2  # seconds that a leaf has


def leaves():
    try:
        found = socket.getaddrinfo(LEAVES, PORT, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror:
        return []  # no leaf is ready
    return sorted({address[0] for *_, address in found})


def ask(address, word, part, parts):
    query = urllib.parse.urlencode({"word": word, "part": part, "parts": parts})
    with urllib.request.urlopen(f"http://{address}:{PORT}/?{query}", timeout=PATIENCE) as answer:
        return json.load(answer)


def scatter_and_gather(word):
    """The lines of the answer, and whether it is whole."""
    addresses = leaves()
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(addresses) or 1) as pool:
        asked = [pool.submit(ask, address, word, part, len(addresses)) for part, address in enumerate(addresses)]
    answers, missing = [], [] if addresses else ["no leaf is ready"]
    for address, answer in zip(addresses, asked, strict=True):
        try:
            answers.append(answer.result())
        except OSError as error:
            missing.append(f"{address}: {error}")
    searched = sum(answer["searched"] for answer in answers)
    found = sorted(line for answer in answers for line in answer["found"])
    lines = [f"{len(answers)} leaves searched {searched} lines and found {len(found)}"]
    lines += sorted(f"  {answer['leaf']}: {len(answer['found'])} of {answer['searched']}" for answer in answers)
    # A part that is missing is told: half an answer is not to be taken for a whole one.
    lines += [f"MISSING: {what}" for what in missing]
    return lines + [f"{number:4} {line}" for number, line in found], not missing


class Root(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        lines, whole = scatter_and_gather(query.get("word", ""))
        body = "\n".join([*lines, ""]).encode()
        self.send_response(200 if whole else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        """Nothing to say about each."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    http.server.ThreadingHTTPServer(("", 8080), Root).serve_forever()
