import json, os, threading, time, urllib.error, urllib.parse, urllib.request


class Tollgate:
    """Returns an access token that is valid for at least another minute. Use one object for the whole process."""

    def __init__(self, url, key, client_id, client_secret):
        self.url, self.key = url, key
        self.client = {"client_id": client_id, "client_secret": client_secret}
        self.lock, self.access, self.refresh, self.renew_at = threading.Lock(), None, None, 0

    def access_token(self):
        with self.lock:  # one renewal at a time
            if time.monotonic() >= self.renew_at:
                try:
                    self._ask("/api/refresh_token" if self.refresh else "/api/authorize")
                except urllib.error.HTTPError as error:
                    if not self.refresh or json.load(error).get("error") != "invalid_grant":
                        raise
                    self.refresh = None  # the session is over: start a new one
                    self._ask("/api/authorize")
            return self.access

    def _ask(self, path):
        fields = self.client | ({"refresh_token": self.refresh} if self.refresh else {})
        request = urllib.request.Request(
            self.url + path, urllib.parse.urlencode(fields).encode(), {"X-API-KEY": self.key})
        with urllib.request.urlopen(request, timeout=10) as answer:
            pair = json.load(answer)
        self.access, self.refresh = pair["access_token"], pair["refresh_token"]
        self.renew_at = time.monotonic() + pair["expires_in"] - 60


tollgate = Tollgate(*(os.environ[name] for name in (
    "TOLLGATE_URL", "TOLLGATE_KEY", "TOLLGATE_CLIENT_ID", "TOLLGATE_CLIENT_SECRET")))
headers = {"X-API-KEY": tollgate.key, "ACCESS-TOKEN": tollgate.access_token()}
print(urllib.request.urlopen(urllib.request.Request(os.environ["API_URL"], headers=headers)).status)
