//! The access log: a line for each request, whatever became of it.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, get, get_with, request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::h2;
use crate::support::origin::Origin;
use crate::support::service::nobody;

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The lines, once there are so many.
async fn logged(path: &Path, count: usize) -> Vec<String> {
    eventually(&format!("there are {count} lines"), async || lines(path).len() >= count).await;
    assert_eq!(lines(path).len(), count);
    lines(path)
}

/// A gateway with the service `s`, and `gone`, of which nothing is left but an address.
async fn gateway(log: &str) -> (Gateway, Origin) {
    let (dir, origin) = (TempDir::new().unwrap(), Origin::start().await);
    let gone = format!("[services.gone]\nendpoints = [{{ address = \"{}\" }}]\n", nobody());
    fs::write(dir.path().join("services.toml"), services("s", &[&origin]) + &gone).unwrap();
    let config = format!("{log}\n[registry.file]\npath = \"services.toml\"\n[auto_routes]\n");
    (Gateway::start_in(dir, &config), origin)
}

#[tokio::test]
async fn a_line_tells_what_was_asked_and_what_became_of_it() {
    let (gateway, origin) = gateway("workers = 1\n[access_log]\npath = \"a.log\"\nformat = \"json\"").await;
    let log = gateway.path("a.log");
    let headers = [("user-agent", "a \"b\" \\ c"), ("x-request-id", "seven"), ("referer", "http://r/")];
    let text = get_with(gateway.http, "/s/x?y=1", &headers).await.text().to_owned();
    get(gateway.http, "/gone/").await;
    get(gateway.http, "/nothing").await;
    let mut broken = TcpStream::connect(gateway.http).await.unwrap();
    broken.write_all(b"GET / HTTP/1.1\r\nbad header\r\n\r\n").await.unwrap();
    broken.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(h2::Client::to(gateway.http).await.get("/s/two").await.text(), text);

    let lines = logged(&log, 5).await;
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = &lines[0];
    for (key, value) in [
        ("method", "GET"),
        ("target", "/s/x?y=1"),
        ("version", "1.1"),
        ("agent", "a \"b\" \\ c"),
        ("referer", "http://r/"),
        ("id", "seven"),
        ("client", "127.0.0.1"),
        ("service", "s"),
    ] {
        assert_eq!(first[key], value, "{key}: {first}");
    }
    assert_eq!(first["endpoints"], serde_json::json!([origin.address.to_string()]));
    assert_eq!((&first["status"], &first["bytes"]), (&200.into(), &text.len().into()));
    assert!(first["seconds"].as_f64().is_some_and(|it| (0.0..20.0).contains(&it)), "{first}");
    assert!(humantime::parse_rfc3339(first["time"].as_str().unwrap()).is_ok());
    assert!(first.get("broken").is_none() && first.get("error").is_none());
    assert_eq!((&lines[1]["status"], &lines[1]["error"]), (&502.into(), &"connect".into()));
    assert_eq!((&lines[2]["status"], &lines[2]["error"]), (&404.into(), &"no-route".into()));
    assert_eq!((&lines[3]["status"], &lines[3]["error"]), (&400.into(), &"malformed".into()));
    assert_eq!((&lines[4]["version"], &lines[4]["bytes"]), (&"2".into(), &text.len().into()));
}

#[tokio::test]
async fn a_file_that_was_renamed_is_left_at_hangup_and_the_last_lines_are_written() {
    let (mut gateway, _origin) = gateway("[access_log]\npath = \"a.log\"").await;
    let (log, old) = (gateway.path("a.log"), gateway.path("old.log"));
    get(gateway.http, "/s/one").await;
    let first = logged(&log, 1).await.remove(0);
    assert!(first.starts_with("time=") && first.contains(" target=/s/one version=1.1 "), "{first}");
    assert!(first.contains(" status=200 bytes="), "{first}");
    fs::rename(&log, &old).unwrap();
    gateway.signal("-HUP");
    eventually("there is a new file", async || log.exists()).await;
    get(gateway.http, "/s/two").await;
    gateway.signal("-TERM");
    assert!(gateway.ended().await.success());
    assert_eq!((lines(&old).len(), lines(&log).len()), (1, 1));
}

#[tokio::test]
async fn a_client_that_leaves_is_told_of() {
    let (gateway, _origin) = gateway("[access_log]\npath = \"a.log\"").await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let silent = format!("[services.silent]\nendpoints = [{{ address = \"{address}\" }}]\n");
    fs::write(gateway.path("services.toml"), silent).unwrap();
    eventually("the route is there", async || gateway.api("services").await.to_string().contains("silent")).await;
    let mut client = Client::to(gateway.http).await;
    let asking = tokio::spawn(async move { client.send(request("/silent/", &[])).await.is_err() });
    eventually("it waits", async || gateway.metric("moongate_service_candidates{service=\"silent\"}").await > 0.0)
        .await;
    asking.abort();
    let line = logged(&gateway.path("a.log"), 1).await.remove(0);
    assert!(line.contains(" broken=true") && line.contains(&format!(" endpoints={address} ")), "{line}");
    assert!(!line.contains(" status="), "{line}");
}
