// Node 18 or newer, without packages.
const { TOLLGATE_URL, TOLLGATE_KEY, TOLLGATE_CLIENT_ID, TOLLGATE_CLIENT_SECRET, API_URL } = process.env;

let pair, renewing;

async function ask(path, more) {
  const body = new URLSearchParams({ client_id: TOLLGATE_CLIENT_ID, client_secret: TOLLGATE_CLIENT_SECRET, ...more });
  const answer = await fetch(TOLLGATE_URL + path, { method: "POST", headers: { "X-API-KEY": TOLLGATE_KEY }, body });
  const json = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(json.error_description), json);
  pair = { ...json, renewAt: Date.now() + (json.expires_in - 60) * 1000 };
}

async function renew() {
  if (!pair) return ask("/api/authorize");
  try {
    await ask("/api/refresh_token", { refresh_token: pair.refresh_token });
  } catch (error) {
    if (error.error !== "invalid_grant") throw error;
    await ask("/api/authorize"); // the session is over: start a new one
  }
}

// Returns a token that is valid for at least another minute. Concurrent callers share one renewal.
async function accessToken() {
  if (!pair || Date.now() >= pair.renewAt) {
    renewing ??= renew().finally(() => (renewing = undefined));
    await renewing;
  }
  return pair.access_token;
}

const answer = await fetch(API_URL, { headers: { "X-API-KEY": TOLLGATE_KEY, "ACCESS-TOKEN": await accessToken() } });
console.log(answer.status);
