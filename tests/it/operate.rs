//! What an operator asks a running gateway for: how it is, and to say more or less.

use std::process::{Command, Output};

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;

use crate::support::client::{Client, get};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;

fn status(gateway: &Gateway, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
    let admin = gateway.admin.to_string();
    let output: Output = command.args(["status", "--admin", &admin]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
}

#[tokio::test]
async fn status_tells_how_a_gateway_is_and_ends_accordingly() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::of(&[&one, &two], "");
    get(gateway.http, "/s/").await;
    let (code, text) = status(&gateway, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(": ready; 1 services, requests go to 2 of 2 endpoints"), "{text}");
    assert!(text.contains("registry file: live") && text.contains(&one.name()) && !text.contains('\x1b'), "{text}");
    assert!(text.lines().any(|it| it.starts_with("round-robin") && it.contains("active")), "{text}");
    let (code, json) = status(&gateway, &["--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["well"], json["services"][0]["endpoints"].as_array().unwrap().len()), (0, &true.into(), 2));

    gateway.serve("s", &[]);
    eventually("the service is empty", async || status(&gateway, &[]).0 == 1).await;
    assert!(status(&gateway, &[]).1.lines().any(|it| it.starts_with('s') && it.ends_with("none")));
    gateway.serve("s", &[&one]);
    eventually("all is well again", async || status(&gateway, &[]).0 == 0).await;
    gateway.plug_bytes("mine", b"no wasm");
    eventually("a plugin has failed", async || status(&gateway, &[]).0 == 1).await;
    assert!(status(&gateway, &[]).1.lines().any(|it| it.starts_with("mine") && it.contains("failed")));
}

#[test]
fn status_of_nobody_is_a_failure() {
    let nobody = crate::support::service::nobody().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_moongate")).args(["status", "--admin", &nobody]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("asking http://{nobody}/readyz")));
}

#[tokio::test]
async fn the_level_is_changed_by_the_admin_api_and_by_the_file_and_by_nobody_else() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "[log]\nformat = \"json\"\n[access_log]\npath = \"a.log\"");
    let put = async |body: &'static str, headers: &[(&str, &str)]| {
        let mut request = Request::put("/api/v1/log-level").header("host", gateway.admin.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Client::to(gateway.admin).await.send(request.body(Full::from(body)).unwrap()).await.unwrap()
    };
    let json = [("content-type", "application/json")];
    assert_eq!(gateway.api("log-level").await["level"], "info");
    for (body, headers, wanted) in [
        ("{\"level\":\"debug\"}", &[][..], StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("{\"level\":\"debug\"}", &[("content-type", "text/plain")], StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("{\"level\":\"debug\"}", &[json[0], ("origin", "http://evil.test")], StatusCode::FORBIDDEN),
        ("{\"level\":\"loud\"}", &json, StatusCode::BAD_REQUEST),
        ("{", &json, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(put(body, headers).await.status, wanted, "{body} {headers:?}");
    }
    assert_eq!(gateway.api("log-level").await["level"], "info");
    get(gateway.http, "/nothing").await;
    let reply = put("{\"level\":\"debug\"}", &json).await;
    assert_eq!((reply.status, reply.text()), (StatusCode::OK, "{\"level\":\"debug\"}"));
    get(gateway.http, "/nothing").await;
    // What callers do wrong is told to whoever asks for much.
    let refused = || gateway.log().matches("request refused").count();
    eventually("the request is told", async || refused() == 1).await;
    for line in gateway.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(line["level"].is_string() && line["message"].is_string() && line["time"].is_string(), "{line}");
    }
    let file = gateway.path("moongate.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(gateway.path("new"), text.replace("format = \"json\"", "format = \"json\"\nlevel = \"warn\""))
        .unwrap();
    std::fs::rename(gateway.path("new"), &file).unwrap();
    eventually("the file is followed", async || gateway.api("log-level").await["level"] == "warn").await;
}
