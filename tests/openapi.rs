//! The OpenAPI document is the contract. Every change to it must be reviewed in `tests/openapi.json`.

use crate::support::{Call, each_engine};

const SNAPSHOT: &str = "tests/openapi.json";

#[tokio::test]
async fn the_document_is_the_one_that_was_reviewed() {
    each_engine(async |app| {
        let document = app.send(Call::get("/openapi.json")).await.ok();
        let text = format!("{document:#}\n");
        if std::env::var_os("TOLLGATE_BLESS").is_some() {
            std::fs::write(SNAPSHOT, &text).expect("the snapshot can be written");
        }
        let reviewed = std::fs::read_to_string(SNAPSHOT).expect("the snapshot is in the repository");
        assert!(
            text == reviewed,
            "the document differs from {SNAPSHOT}; if it should, run the test with TOLLGATE_BLESS=1 and review the diff"
        );
    })
    .await;
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    each_engine(async |app| {
        let document = app.send(Call::get("/openapi.json")).await.ok();
        let text = document.to_string();
        let mut references = 0;
        for rest in text.split("\"$ref\":\"#").skip(1) {
            let pointer = rest.split('"').next().expect("a reference ends");
            assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
            references += 1;
        }
        assert!(references > 100, "{references}: the document has them in plenty");
    })
    .await;
}

#[tokio::test]
async fn every_operation_has_an_id_of_its_own_and_says_what_it_answers() {
    each_engine(async |app| {
        let document = app.send(Call::get("/openapi.json")).await.ok();
        let paths = document["paths"].as_object().expect("the document has paths");
        let mut ids = Vec::new();
        for operation in
            paths.values().flat_map(|path| path.as_object().expect("a path has operations").values())
        {
            ids.push(operation["operationId"].as_str().expect("an operation has an id"));
            assert!(operation["summary"].is_string() && operation["security"].is_array(), "{operation:#}");
            let responses = operation["responses"].as_object().expect("an operation has answers");
            assert!(responses.values().all(|response| response["description"] != ""), "{operation:#}");
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "two operations have the same id");
    })
    .await;
}
