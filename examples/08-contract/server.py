"""A server that keeps its contract with whoever runs it.

Upward it tells how it is:            Downward it obeys:
    /healthz  am I stuck?                 preStop   /prestop: say "not ready", so that no new work comes
    /ready    may work be sent to me?     SIGTERM   end what is begun, then end with 0
    /metrics  numbers for Prometheus      limits    know the memory there is (MEMORY_LIMIT, by the downward API)

Its work is /work?seconds=2. To see what happens when it fails, /deadlock and /leak do what their names say, for real.
"""

import http.server
import os
import signal
import threading
import time
import urllib.parse

MAINTENANCE = "/tmp/maintenance"  # while this file exists, an operator wants no work to come


def say(what):
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {what}")


class State:
    """What the process knows of itself. The lock guards the numbers, and all work takes it: so it is what gets stuck."""

    def __init__(self):
        self.lock = threading.Lock()
        self.begun = self.done = 0
        self.leaving = False
        self.leaked = []

    def ready(self):
        return not self.leaving and not os.path.exists(MAINTENANCE)


STATE = State()


class Contract(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        answer = getattr(self, "answer_" + url.path.strip("/"), None)
        if answer is None:
            self.tell(404, "there is /work /healthz /ready /metrics /prestop /deadlock /leak")
            return
        answer({name: values[-1] for name, values in urllib.parse.parse_qs(url.query).items()})

    # --- upward ---

    def answer_healthz(self, _):
        """Takes the lock that work takes: a server that answers here can work."""
        with STATE.lock:
            self.tell(200, "alive")

    def answer_ready(self, _):
        """Not the same question: who is not ready is well, and is left alone."""
        if STATE.ready():
            self.tell(200, "ready")
        else:
            self.tell(503, "leaving" if STATE.leaving else f"{MAINTENANCE} exists")

    def answer_metrics(self, _):
        with STATE.lock:
            begun, done = STATE.begun, STATE.done
        self.tell(
            200,
            "# TYPE work_total counter",
            f"work_total {done}",
            "# TYPE work_in_progress gauge",
            f"work_in_progress {begun - done}",
            "# TYPE ready gauge",
            f"ready {int(STATE.ready())}",
            "# TYPE memory_limit_bytes gauge",
            f"memory_limit_bytes {os.environ['MEMORY_LIMIT']}",
        )

    # --- downward ---

    def answer_prestop(self, _):
        STATE.leaving = True
        say("preStop: not ready any more; what is under way may still come")
        time.sleep(1)  # for those who have not heard it yet
        self.tell(200, "leaving")

    # --- its work, and its failures ---

    def answer_work(self, query):
        with STATE.lock:
            STATE.begun += 1
        time.sleep(float(query.get("seconds", "0")))
        with STATE.lock:
            STATE.done += 1
        self.tell(200, f"done by {os.uname().nodename}")

    def answer_deadlock(self, _):
        say("deadlock: the lock is taken, and never given back")
        STATE.lock.acquire()
        self.tell(200, "stuck")

    def answer_leak(self, _):
        say("leak: takes memory and gives none back")
        while True:
            STATE.leaked.append(b"x" * (1 << 20))

    def tell(self, status, *lines):
        body = "".join(line + "\n" for line in lines).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_):
        """Probes ask every second."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests that are begun


def main():
    server = Server(("", 8080), Contract)

    def end(*_):
        STATE.leaving = True
        say("SIGTERM: takes nothing new, ends what is begun")
        # From another thread: shutdown() waits for the loop that this signal has interrupted.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    say(f"serves, with {int(os.environ['MEMORY_LIMIT']) >> 20} MiB of memory")
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    say(f"all {STATE.done} done, ends with 0")


if __name__ == "__main__":
    main()
