"""A webhook receiver that uses `standardwebhooks` from PyPI: receiver.py PORT ORDERS LOG. node/receiver.mjs does the same.

ORDERS is a JSON file, read for each request: `secrets` gives the secrets of each path, `holds` makes it take requests
and never answer. LOG gets a line for each request: what came, and which of the secrets verify it.
"""

import base64
import http.server
import json
import pathlib
import sys
import threading
import time

from standardwebhooks import Webhook, WebhookVerificationError

PORT, ORDERS, LOG = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])

one_line_at_a_time = threading.Lock()


def orders(path):
    """The secret of a new key comes with the answer that made it, which a first webhook may overtake: it waits."""
    while path not in (read := json.loads(ORDERS.read_text()))["secrets"]:
        time.sleep(0.05)
    return read["secrets"][path], read["holds"]


def verifies(secret, body, headers):
    try:
        Webhook(secret).verify(body, headers)
        return True
    except WebhookVerificationError:
        return False


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = dict(self.headers.items())
        secrets, holds = orders(self.path)
        verified = [verifies(secret, body, headers) for secret in secrets]
        came = {
            "path": self.path,
            "id": self.headers["webhook-id"],
            "timestamp": self.headers["webhook-timestamp"],
            "signatures": self.headers["webhook-signature"].split(" "),
            "body": base64.b64encode(body).decode(),
            "verified": verified,
            "held": holds,
        }
        with one_line_at_a_time, LOG.open("a") as log:
            log.write(json.dumps(came) + "\n")
        if holds:
            # Wait until the sender closes.
            self.connection.recv(1)
            self.close_connection = True
            return
        self.send_response(204 if any(verified) else 400)
        self.end_headers()

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Receiver).serve_forever()
