// Cargo.toml: serde_json = "1", ureq = { version = "3", features = ["json"] }
use std::env::var;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Hands out an access token that is good for another minute at least. One for the whole process.
struct Tollgate {
    url: String,
    key: String,
    client: [(&'static str, String); 2],
    pair: Mutex<Option<Pair>>,
}

struct Pair {
    access: String,
    refresh: String,
    renew_at: Instant,
}

impl Tollgate {
    fn access_token(&self) -> Result<String, Box<dyn std::error::Error>> {
        let mut pair = self.pair.lock().expect("nothing here panics"); // one renewal at a time
        if let Some(pair) = pair.as_ref().filter(|pair| Instant::now() < pair.renew_at) {
            return Ok(pair.access.clone());
        }
        let mut answer = self.ask(pair.as_ref())?;
        if pair.is_some() && answer["error"] == "invalid_grant" {
            answer = self.ask(None)?; // the session is over: start a new one
        }
        let text = |name: &str| answer[name].as_str().map(str::to_owned).ok_or(format!("no token: {}", answer["error"]));
        let seconds = answer["expires_in"].as_u64().unwrap_or(0).saturating_sub(60);
        let renew_at = Instant::now() + Duration::from_secs(seconds);
        let renewed = Pair { access: text("access_token")?, refresh: text("refresh_token")?, renew_at };
        Ok(pair.insert(renewed).access.clone())
    }

    fn ask(&self, pair: Option<&Pair>) -> Result<Value, ureq::Error> {
        let refresh = pair.map(|pair| ("refresh_token", pair.refresh.clone()));
        let path = if pair.is_some() { "/api/refresh_token" } else { "/api/authorize" };
        ureq::post(format!("{}{path}", self.url))
            .config().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10))).build()
            .header("X-API-KEY", &self.key)
            .send_form(self.client.clone().into_iter().chain(refresh))?
            .body_mut()
            .read_json()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = [("client_id", var("TOLLGATE_CLIENT_ID")?), ("client_secret", var("TOLLGATE_CLIENT_SECRET")?)];
    let tollgate =
        Tollgate { url: var("TOLLGATE_URL")?, key: var("TOLLGATE_KEY")?, client, pair: Mutex::new(None) };
    let answer = ureq::get(var("API_URL")?)
        .header("X-API-KEY", &tollgate.key)
        .header("ACCESS-TOKEN", tollgate.access_token()?)
        .call()?;
    println!("{}", answer.status());
    Ok(())
}
