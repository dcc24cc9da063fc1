//! The `OpenAPI` document, kept beside the tests: a change of the API is a change of this file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::server::{TestServer, answer};

/// Set to anything, this makes the test write the file instead.
const UPDATE: &str = "FLEETWRIGHT_UPDATE_OPENAPI";

#[test]
fn the_document_is_the_golden_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/openapi.json");
    let now = fw_server::api::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = golden.lines().zip(now.lines()).position(|(a, b)| a != b);
    assert!(
        golden == now,
        "the API is not what tests/data/openapi.json says (first at line {:?}). If that is meant, run\n  \
         {UPDATE}=1 cargo nextest run -p fw-server the_document_is_the_golden_one\nand review the difference: \
         what clients rely on may only grow",
        differs.map(|line| line + 1),
    );
}

#[tokio::test]
async fn the_document_is_served_without_a_token() {
    let server = TestServer::start().await;
    let (status, served) =
        answer(server.client.get(format!("{}/api/v1/openapi.json", server.url))).await;
    assert_eq!(status, 200);
    assert_eq!(served, document());
    assert_eq!(served["openapi"], "3.1.0");
}

fn document() -> Value {
    serde_json::from_str(&fw_server::api::document().to_json().unwrap()).unwrap()
}

#[test]
fn each_operation_has_a_name_of_its_own_a_summary_and_a_problem() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(operation["summary"].is_string(), "{method} {path}");
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert_eq!(
                problem["schema"]["$ref"], "#/components/schemas/Problem",
                "{method} {path}"
            );
        }
    }
}

#[test]
fn each_reference_leads_somewhere() {
    let document = document();
    let mut pending = vec![&document];
    while let Some(value) = pending.pop() {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                pending.extend(map.values());
            }
            Value::Array(items) => pending.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
