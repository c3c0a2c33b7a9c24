//! Calls the snippet with what is in webhook.json, and prints whether it is genuine.

#[path = "../../../src/http/docs/snippets/verify.rs"]
mod snippet;

use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine};

fn main() {
    let text = std::fs::read("webhook.json").expect("the test wrote it");
    let hook: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
    let field = |name: &str| hook[name].as_str().expect("it is text");
    let body = BASE64_STANDARD.decode(field("body")).expect("it is base64");
    let header = |name: &str| hook["headers"][name].as_str();
    println!("{}", snippet::is_genuine(field("secret"), header, &body, SystemTime::now()));
}
