//! TLS: served, and renewed without a restart.

use std::path::{Path, PathBuf};

use fw_server::TlsFiles;

use crate::server::{DEADLINE, TestServer};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// A client that believes this certificate only.
fn client(name: &str) -> reqwest::Client {
    let pem = std::fs::read(data(&format!("{name}.crt"))).unwrap();
    let certificate = reqwest::Certificate::from_pem(&pem).unwrap();
    let client =
        reqwest::Client::builder().no_proxy().timeout(DEADLINE).tls_certs_only([certificate]);
    client.pool_max_idle_per_host(0).build().unwrap()
}

fn install(to: &TlsFiles, name: &str) {
    std::fs::copy(data(&format!("{name}.crt")), &to.cert).unwrap();
    std::fs::copy(data(&format!("{name}.key")), &to.key).unwrap();
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_bad_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles { cert: dir.path().join("crt"), key: dir.path().join("key") };
    install(&files, "one");
    let server = TestServer::with(|config| config.tls = Some(files.clone())).await;
    assert!(server.running.url.starts_with("https://"));
    let url = format!("{}/healthz", server.running.url);
    let (one, two) = (client("one"), client("two"));
    assert_eq!(one.get(&url).send().await.unwrap().status(), 200);
    assert!(two.get(&url).send().await.is_err());
    std::fs::write(&files.cert, "not a certificate").unwrap();
    install(&files, "two");
    let renewed = async {
        while two.get(&url).send().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, renewed).await.expect("the new certificate is taken up");
    assert!(one.get(&url).send().await.is_err());
}

#[tokio::test]
async fn files_that_are_no_certificate_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles { cert: data("one.crt"), key: data("two.key") };
    let mut config = fw_server::Config::new(dir.path().to_owned(), ([127, 0, 0, 1], 0).into());
    config.tls = Some(files.clone());
    assert!(fw_server::start(config.clone(), fw_rt::Clock::system()).await.is_err());
    config.tls = Some(TlsFiles { cert: data("one.key"), ..files });
    assert!(fw_server::start(config, fw_rt::Clock::system()).await.is_err());
}
