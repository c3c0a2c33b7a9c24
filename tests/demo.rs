//! `tollgate demo`: the printed commands work when they are pasted, and keep working.

use std::process::Command;

use serde_json::Value;

use crate::support::program::Server;
use crate::support::{Database, Tokens, database, engines};

/// The commands of the printed text, each as it would be pasted.
fn pasted(printed: &str) -> Vec<String> {
    let starts: Vec<usize> = printed.match_indices("\ncurl ").map(|(start, _)| start + 1).collect();
    let command = |start: usize| {
        let rest = &printed[start..];
        rest[..rest.find("\n\n").unwrap_or(rest.len())].to_owned()
    };
    starts.into_iter().map(command).collect()
}

/// Pastes a command into a shell, and returns the status and the body, null where that is not JSON.
fn paste(command: &str) -> (u16, Value) {
    let script = format!("{command} --silent --show-error --max-time 30 --write-out '\\n%{{http_code}}'");
    let output = Command::new("sh").arg("-c").arg(&script).output().expect("every Unix has a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text
        .rsplit_once('\n')
        .unwrap_or_else(|| panic!("{command}: {}", String::from_utf8_lossy(&output.stderr)));
    (status.parse().expect("curl writes a number"), serde_json::from_str(body).unwrap_or_default())
}

#[track_caller]
fn pair((status, body): (u16, Value)) -> Tokens {
    assert_eq!(status, 200, "{body}");
    let token = |name: &str| body[name].as_str().expect("a pair has both").to_owned();
    Tokens { access: token("access_token"), refresh: token("refresh_token") }
}

#[test]
fn what_it_prints_works_when_pasted_and_survives_a_crash() {
    for engine in engines() {
        let database = Database::without_schema(engine);
        let (first, printed) = Server::demo(&database);
        let [renew, start, verify, refresh] = &pasted(&printed)[..] else {
            panic!("not four commands:\n{printed}")
        };
        let refresh = |token: &str| refresh.replace("PASTE_ONE_HERE", token);

        let renewed = pair(paste(renew));
        assert_eq!(pair(paste(renew)), renewed, "pasted again, the very same pair");
        let started = pair(paste(start));
        assert_ne!(pair(paste(start)), started, "each start is a session of its own");
        let (status, _) = paste(&verify.replace("PASTE_ONE_HERE", &started.access));
        assert_eq!(status, 200, "the access token may be used");
        let second = pair(paste(&refresh(&renewed.refresh)));
        let address = first.address;
        first.kill();

        let (again, text) = Server::demo(&database);
        assert!(text.contains("not empty") && pasted(&text).is_empty(), "{text}");
        let at = |command: &str| command.replace(&address.to_string(), &again.address.to_string());
        assert_eq!(
            pair(paste(&at(&refresh(&renewed.refresh)))),
            second,
            "acknowledged right before the crash"
        );
        let third = pair(paste(&at(&refresh(&second.refresh))));

        // The token from the refresh is two generations old by now.
        for token in [&renewed.refresh, &third.refresh] {
            let (status, body) = paste(&at(&refresh(token)));
            assert_eq!((status, &body["error"]), (400, &Value::from("invalid_grant")), "{body}");
        }
        pair(paste(&at(&refresh(&started.refresh))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_again_it_makes_nothing_twice() {
    for engine in engines() {
        let database = Database::without_schema(engine);
        for _ in 0..3 {
            let (server, _) = Server::demo(&database);
            server.kill();
        }
        let store = database::open(&database.url).await;
        let mut db = store.read().await.expect("the store answers");
        for (sql, expected) in [
            ("select count(*) from merchants", 1),
            ("select count(*) from api_keys", 1),
            ("select count(*) from credentials", 1),
            ("select count(*) from sessions", 1),
        ] {
            assert_eq!(db.query(sql).one::<(i64,)>().await.expect("the query is right").0, expected, "{sql}");
        }
    }
}
