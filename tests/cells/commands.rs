//! Commands on several cells.

use std::sync::Arc;

use serde_json::Value;

use super::CELLS;
use crate::support::app::TOKEN_KEY;
use crate::support::program::{run, stdout_of, tollgate};
use crate::support::{Database, TestApp, engines};

/// `tollgate ARGUMENTS` on databases that are called `one`, `two` and so on.
fn on(databases: &[Arc<Database>], arguments: &[&str]) -> std::process::Command {
    let mut command = tollgate(arguments);
    command.env("TOLLGATE__TOKENS__KEYS", hex::encode(TOKEN_KEY));
    for (name, database) in ["one", "two", "three"].iter().zip(databases) {
        command.arg(format!("--cell={name}={}", database.url));
    }
    command
}

#[tokio::test]
async fn what_spans_cells_is_asked_of_each_and_says_which_one_answered() {
    for engine in engines() {
        let (mut databases, mut merchants) = (Vec::new(), Vec::new());
        for configure in CELLS {
            let app = TestApp::with(engine, configure).await;
            merchants.push(app.merchant().await.id.to_string());
            databases.push(Arc::clone(&app.database));
            app.stopped().await;
        }
        let listed = stdout_of(&mut on(&databases, &["merchant", "list", "--json"]));
        let lines: Vec<Value> =
            listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 3, "{listed}");
        for ((line, name), merchant) in lines.iter().zip(["one", "two", "three"]).zip(&merchants) {
            assert_eq!(
                (line["cell"].as_str(), line["items"][0]["id"].as_str()),
                (Some(name), Some(merchant.as_str()))
            );
        }
        let verified = stdout_of(&mut on(&databases, &["audit", "tail"]));
        assert!(
            ["one", "two", "three"].iter().all(|name| verified.contains(&format!("\"cell\":\"{name}\""))),
            "{verified}"
        );

        let shown = stdout_of(&mut on(&databases, &["merchant", "show", &merchants[1]]));
        assert!(
            shown.lines().all(|line| line.starts_with("two: ")) && shown.contains(&merchants[1]),
            "{shown}"
        );
        let absent = run(&mut on(&databases, &["merchant", "show", "Nobody"]));
        assert!(
            !absent.status.success()
                && String::from_utf8_lossy(&absent.stderr).contains("there is no merchant")
        );

        // A cell that the merchant has left answers too.
        let mut leave = on(&databases[..1], &["key", "list", &merchants[0]]);
        stdout_of(&mut leave);
        let one = TestApp::over_with(Arc::clone(&databases[0]), CELLS[0]).await;
        one.run_sql("update merchants set home = 2").await;
        one.stopped().await;
        let left = run(&mut on(&databases, &["key", "list", &merchants[0]]));
        let told = String::from_utf8_lossy(&left.stderr);
        assert!(!left.status.success() && !told.contains("did not answer"), "{told}");

        let suspended = run(&mut on(&databases, &["merchant", "suspend", &merchants[1]]));
        assert!(!suspended.status.success(), "a change went to several cells");
        stdout_of(&mut on(&databases[1..2], &["merchant", "suspend", &merchants[1]]));

        let mut with_one_gone = on(&databases[..2], &["merchant", "list", "--json"]);
        with_one_gone.arg("--cell=gone=sqlite:///nonexistent/tollgate.db");
        let output = run(&mut with_one_gone);
        let (told, listed) =
            (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert!(!output.status.success() && told.contains("1 of 3 cells did not answer"), "{told}");
        assert_eq!(listed.lines().count(), 2, "the others answered");
    }
}
