//! The admin side: what happened, why a request would go where it would, and who may ask.

use std::fs;
use std::process::Command;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::plugins::with_plugins;
use crate::support::client::{Client, Reply, get, get_with};
use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::origin::Origin;
use crate::support::service::nobody;
use crate::support::wasm::fixture;

async fn two() -> [Origin; 2] {
    let mut both = [Origin::start().await, Origin::start().await];
    both.sort_by_key(|it| it.address);
    both
}

/// Asks the admin API with these headers.
async fn ask(gateway: &Gateway, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    if headers.iter().all(|it| it.0 != "host") {
        request = request.header("host", gateway.admin.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Client::to(gateway.admin).await.send(request.body(Full::default()).unwrap()).await.unwrap()
}

/// All events, as `kind what subject`.
async fn happened(gateway: &Gateway) -> Vec<String> {
    let all = gateway.api("events?format=json").await;
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let told = |it: &Value| ["kind", "what", "subject"].map(|key| text(it, key)).join(" ");
    all["events"].as_array().unwrap().iter().map(told).collect()
}

async fn happens(gateway: &Gateway, what: &str) {
    eventually(what, async || happened(gateway).await.iter().any(|it| it == what)).await;
}

#[tokio::test]
async fn what_happens_is_told_once_and_in_order() {
    let [a, b] = two().await;
    let config = "workers = 1\n[upstream]\noutlier = { consecutive = 2, eject = \"1m\", panic = \"0%\" }\nretry_budget.min = 1000";
    let gateway = with_plugins(&[&a, &b], &[], config);
    assert_eq!(happened(&gateway).await, ["registry live file", "gateway started gateway"]);
    assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::OK);

    gateway.plug("round-robin", fixture("first"));
    happens(&gateway, "plugin swapped round-robin").await;
    gateway.plug_bytes("round-robin", b"nonsense");
    happens(&gateway, "plugin refused round-robin").await;
    gateway.unplug("round-robin");
    happens(&gateway, "plugin restored round-robin").await;
    gateway.plug("round-robin", fixture("late-trap"));
    let mut client = Client::to(gateway.http).await;
    eventually("it is quarantined", async || {
        client.get("/s/").await;
        happened(&gateway).await.contains(&"plugin quarantined round-robin".to_owned())
    })
    .await;

    gateway.serve("s", &[&a]);
    happens(&gateway, "service left s").await;
    gateway.serve("s", &[&a, &b]);
    happens(&gateway, "service came s").await;
    drop(b);
    eventually("it is ejected", async || {
        client.get("/s/").await;
        happened(&gateway).await.contains(&"health ejected s".to_owned())
    })
    .await;
    fs::write(gateway.path("moongate.toml"), "nonsense = 1\n").unwrap();
    happens(&gateway, "config refused configuration").await;
    gateway.serve("s", &[]);
    happens(&gateway, "service empty s").await;

    let all = gateway.api("events?format=json").await;
    let events = all["events"].as_array().unwrap();
    let ids: Vec<u64> = events.iter().map(|it| it["id"].as_u64().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]) && all["missed"] == false);
    let since = gateway.api(&format!("events?format=json&since={}", ids[2])).await;
    assert_eq!(since["events"].as_array().unwrap()[..], events[3..]);
    let swapped = events.iter().find(|it| it["what"] == "swapped").unwrap();
    assert!(swapped["fields"]["before"]["bundled"] == true && swapped["fields"]["after"]["bundled"] == false);
    let mistake = events.iter().find(|it| it["what"] == "refused" && it["kind"] == "config").unwrap();
    assert!(mistake["fields"]["mistakes"].as_str().unwrap().contains("moongate.toml:1:1"), "{mistake}");
}

/// Reads a stream until it has this in it.
async fn read_until(stream: &mut TcpStream, text: &mut String, what: &str) {
    eventually(what, async || {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(std::time::Duration::from_millis(100), stream.read(&mut bytes)).await;
        if let Ok(Ok(read)) = read {
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        text.contains(what)
    })
    .await;
}

async fn stream(gateway: &Gateway, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.admin).await.unwrap();
    let head = format!("GET /api/v1/{head}Host: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn events_are_streamed_and_resumed_and_watchers_are_bounded() {
    let [a, b] = two().await;
    let gateway = Gateway::of(&[&a, &b], "workers = 1");
    let (mut watching, mut text) = (stream(&gateway, "events HTTP/1.1\r\n").await, String::new());
    read_until(&mut watching, &mut text, "\"what\":\"started\"").await;
    assert!(text.contains("content-type: text/event-stream"), "{text}");
    let last = text.rsplit("id: ").next().unwrap().split('\n').next().unwrap().to_owned();
    gateway.serve("s", &[&a]);
    read_until(&mut watching, &mut text, "\"what\":\"left\"").await;
    drop(watching);

    gateway.serve("s", &[&b]);
    happens(&gateway, "service changed s").await;
    let (mut again, mut text) =
        (stream(&gateway, &format!("events HTTP/1.1\r\nLast-Event-ID: {last}\r\n")).await, String::new());
    read_until(&mut again, &mut text, "\"what\":\"changed\"").await;
    assert!(text.contains("\"what\":\"left\"") && !text.contains("\"what\":\"started\""), "{text}");
    drop(again);

    let (mut live, mut text) = (stream(&gateway, "live?since=0 HTTP/1.1\r\n").await, String::new());
    read_until(&mut live, &mut text, "event: state").await;
    read_until(&mut live, &mut text, &b.name()).await;
    let mut all = vec![live];
    let refused = loop {
        let mut next = stream(&gateway, "events HTTP/1.1\r\n").await;
        let mut head = [0; 12];
        next.read_exact(&mut head).await.unwrap();
        if &head != b"HTTP/1.1 200" {
            break head;
        }
        all.push(next);
        assert!(all.len() <= 32);
    };
    assert_eq!(&refused, b"HTTP/1.1 503");
    // Of those that have just left one or the other may still be counted.
    assert!((28..=32).contains(&all.len()), "{}", all.len());
    drop(all);
    eventually("there is room again", async || {
        let mut next = stream(&gateway, "events HTTP/1.1\r\n").await;
        let mut head = [0; 12];
        next.read_exact(&mut head).await.unwrap();
        &head == b"HTTP/1.1 200"
    })
    .await;
    assert_eq!(get(gateway.admin, "/api/v1/events?since=x").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_explanation_says_what_then_happens() {
    let [a, b] = two().await;
    let (dir, gone) = (TempDir::new().unwrap(), nobody());
    let more = format!(
        "[services.t]\nendpoints = [{{ address = \"{}\", weight = 5 }}, {{ address = \"{gone}\" }}]\n",
        a.name()
    );
    fs::write(dir.path().join("services.toml"), services("s", &[&a, &b]) + &more).unwrap();
    let config = r#"
        workers = 1
        header_routes = "/services"
        [registry.file]
        path = "services.toml"
        [auto_routes]
        [upstream]
        outlier = { consecutive = 1, eject = "1m", panic = "0%" }
        [[routes]]
        path_prefix = "/shop"
        service = "s"
        filters = [{ plugin = "set-header", config = { name = "x-a", value = "b" } }]
        [[routes]]
        path_prefix = "/shop/cart"
        service = "t"
        methods = ["POST"]
        balancer = "random"
        [[routes]]
        path_prefix = "/keyed"
        service = "s"
        balancer = { plugin = "consistent-hash", config = { by = { header = "x-user" } }, fallback = "least-request" }
    "#;
    let gateway = Gateway::start_in(dir, config);

    // Round robin: what is explained is what the next request gets, however often it is explained.
    for turn in 0..4 {
        let told = gateway.api("explain?path=/s/x%3Fy=1").await;
        assert_eq!(gateway.api("explain?path=/s/x%3Fy=1").await["pick"], told["pick"], "{told}");
        assert_eq!((&told["route"]["name"], &told["sends"]), (&"/s".into(), &"/x?y=1".into()));
        assert_eq!((&told["sequence"], &told["pick"]["certain"]), (&turn.into(), &true.into()));
        assert_eq!(told["pick"]["address"], get(gateway.http, "/s/x?y=1").await.text());
    }
    let told = gateway.api("explain?path=/shop/cart/1").await;
    assert_eq!((&told["route"]["name"], &told["route"]["service"]), (&"/shop".into(), &"s".into()));
    let why = |name: &str| {
        let all = told["looked_at"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name}: {told}"))["why"].as_str().unwrap()
    };
    assert_eq!(why("/shop/cart"), "the method is not POST");
    assert_eq!(why("/keyed"), "the path is not below /keyed");
    assert_eq!(why("/services by headers"), "the path is not /services");
    assert_eq!(told["filters"][0]["plugin"], "set-header");
    let told = gateway.api("explain?path=/shop/cart/1&method=POST").await;
    assert_eq!((&told["route"]["name"], &told["pick"]["by"]), (&"/shop/cart".into(), &"random".into()));
    let headers = "header=service_name:t&header=api_name:/y";
    let told = gateway.api(&format!("explain?path=/services&{headers}")).await;
    assert_eq!((&told["route"]["service"], &told["sends"]), (&"t".into(), &"/y".into()));

    // The key is hashed for it as for a request, and the next balancer is told of as well.
    let told = gateway.api("explain?path=/keyed/&header=x-user:ada").await;
    assert_eq!(told["pick"]["address"], get_with(gateway.http, "/keyed/", &[("x-user", "ada")]).await.text());
    let balancers = told["balancers"].as_array().unwrap();
    assert_eq!((balancers.len(), &balancers[0]["asked"], &balancers[1]["asked"]), (2, &true.into(), &false.into()));
    assert_eq!(balancers[0]["keys"][0]["key"], "header x-user");
    assert_eq!(balancers[0]["keys"][0]["hash"].as_str().unwrap().len(), 16);

    // Who is out, and why.
    let mut client = Client::to(gateway.http).await;
    eventually("it is ejected", async || {
        client.get("/t/").await;
        gateway.api("explain?path=/t/").await["service"]["candidates"] == 1
    })
    .await;
    let told = gateway.api("explain?path=/t/").await;
    let endpoints = told["endpoints"].as_array().unwrap();
    let out = endpoints.iter().find(|it| it["address"] == gone.to_string()).unwrap();
    assert_eq!(out["out"], "ejected: 1 failures in a row, the last: no connection");
    assert_eq!(endpoints.iter().find(|it| it["address"] == a.name()).unwrap()["weight"], 5);
    assert!(told["summary"].to_string().contains("ejected"), "{told}");

    for (query, status, reason) in [
        ("path=/none", 404, "no route"),
        ("path=/a/../b", 400, "a dot segment"),
        ("path=/s/&header=host:a%20b", 400, "host"),
    ] {
        let told = gateway.api(&format!("explain?{query}")).await;
        assert_eq!((&told["refused"]["status"], &told["pick"]), (&status.into(), &Value::Null), "{told}");
        assert!(
            told["refused"]["reason"].as_str().unwrap().contains(reason) || !told["summary"][0].is_null(),
            "{told}"
        );
    }
    for bad in ["path=x", "method=%20", "client=x", "header=x", "header=a%20b:c", "header=a:b%0Ac"] {
        assert_eq!(
            get(gateway.admin, &format!("/api/v1/explain?{bad}")).await.status,
            StatusCode::BAD_REQUEST,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_request_with_the_secret_is_told_how_it_was_decided() {
    let secret = "a secret of some length";
    let echo = Origin::answering(|request, _| {
        let seen = request.headers().keys().map(|it| it.as_str()).collect::<Vec<_>>().join(" ");
        http::Response::new(Full::from(seen))
    })
    .await;
    let (dir, gone) = (TempDir::new().unwrap(), nobody());
    let addresses = [echo.name(), gone.to_string()].map(|it| format!("{{ address = \"{it}\" }}")).join(", ");
    fs::write(dir.path().join("services.toml"), format!("[services.s]\nendpoints = [{addresses}]\n")).unwrap();
    fs::write(dir.path().join("secret"), format!("{secret}\n")).unwrap();
    let gateway = Gateway::start_in(
        dir,
        "workers = 1\n[explain]\nsecret_file = \"secret\"\n[registry.file]\npath = \"services.toml\"\n[auto_routes]\n\
         [access_log]\npath = \"a.log\"\nformat = \"json\"\n",
    );
    let name = "x-moongate-explain";
    let mut told = Vec::new();
    for _ in 0..2 {
        let reply = get_with(gateway.http, "/s/x", &[(name, secret)]).await;
        assert!(!reply.text().contains(name), "the endpoint saw {}", reply.text());
        told.push(reply.header(name).to_owned());
    }
    let tried_both = told.iter().find(|it| it.contains(&format!("attempts=(\"{gone}\" \"{}\")", echo.name())));
    assert!(tried_both.is_some(), "{told:?}");
    for told in &told {
        for part in [
            "route=\"/s\", service=\"s\", balancer=\"round-robin\", version=\"",
            "endpoints=2, candidates=2, sequence=",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
    for wrong in ["", "a secret of some lengtH"] {
        let reply = get_with(gateway.http, "/s/x", &[(name, wrong)]).await;
        assert!(reply.headers.get(name).is_none() && !reply.text().contains(name), "{}", reply.text());
    }
    let reply = get_with(gateway.http, "/none", &[(name, secret)]).await;
    assert_eq!((reply.status, reply.header(name)), (StatusCode::NOT_FOUND, "route=?0"));

    // What the log has of it is enough to follow it.
    let log = || fs::read_to_string(gateway.path("a.log")).unwrap_or_default();
    eventually("the log has them", async || log().lines().count() == 5).await;
    let first: Value = serde_json::from_str(log().lines().next().unwrap()).unwrap();
    let balancer = first["balancer"].as_str().unwrap();
    assert!(balancer.starts_with("round-robin@") && balancer.len() == "round-robin@".len() + 8, "{first}");
    assert_eq!((&first["candidates"], &first["sequence"]), (&2.into(), &0.into()), "{first}");
    assert!(!log().contains(secret) && !gateway.log().contains(secret));
}

#[tokio::test]
async fn the_admin_api_answers_only_those_who_may_ask() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "workers = 1");
    let status =
        async |method, path: &str, headers: &[(&str, &str)]| ask(&gateway, method, path, headers).await.status.as_u16();
    assert_eq!(status(Method::GET, "/metrics", &[("host", "localhost:1")]).await, 200);
    assert_eq!(status(Method::GET, "/", &[("host", "evil.test")]).await, 403);
    assert_eq!(status(Method::GET, "/api/v1/services", &[("sec-fetch-site", "cross-site")]).await, 403);
    assert_eq!(status(Method::POST, "/api/v1/services", &[]).await, 405);
    assert_eq!(status(Method::POST, "/api/v1/services", &[("origin", "http://evil.test")]).await, 403);
    let page = ask(&gateway, Method::GET, "/", &[]).await;
    assert!(page.header("content-security-policy").contains("default-src 'none'; script-src 'self'"));
    assert!(!page.text().contains("<style") && !page.text().contains("onclick"), "it would not be let run");

    // With a token, nothing without it but what containers and balancers ask, and the page that asks for it.
    let dir = TempDir::new().unwrap();
    let token = "0123456789abcdef";
    fs::write(dir.path().join("token"), token).unwrap();
    let gateway = Gateway::start_in(dir, "workers = 1\nadmin_token_file = \"token\"\n");
    let status =
        async |path: &str, headers: &[(&str, &str)]| ask(&gateway, Method::GET, path, headers).await.status.as_u16();
    for path in ["/healthz", "/readyz", "/", "/dashboard.js", "/dashboard.css"] {
        assert_eq!(status(path, &[]).await, 200, "{path}");
    }
    for path in ["/metrics", "/api/v1/services", "/api/v1/explain", "/api/v1/events", "/api/v1/live", "/nothing"] {
        assert_eq!(status(path, &[]).await, 401, "{path}");
        assert_eq!(status(path, &[("authorization", "Bearer 0123456789abcdeF")]).await, 401, "{path}");
    }
    assert_eq!(status("/metrics", &[("authorization", "Bearer 0123456789abcdef")]).await, 200);
    assert!(!gateway.log().contains(token));
}

#[test]
fn an_admin_address_for_others_needs_a_token() {
    let dir = TempDir::new().unwrap();
    let check = |text: &str, variables: &[(&str, &str)]| {
        let file = dir.path().join("moongate.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
        command.args(["check", "--config"]).arg(&file).envs(variables.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let open = "admin = \"0.0.0.0:9900\"\n";
    let (code, told) = check(open, &[]);
    assert!(
        code == Some(1) && told.contains("moongate.toml:1:9: admin: 0.0.0.0:9900 is no loopback address"),
        "{told}"
    );
    assert_eq!(check(open, &[("MOONGATE_ADMIN_TOKEN", "0123456789abcdef")]).0, Some(0));
    assert_eq!(check("admin = \"127.0.0.1:9900\"\n", &[]).0, Some(0));
    assert_eq!(check("admin = \"[::1]:9900\"\n", &[]).0, Some(0));
    assert_eq!(check(&format!("{open}admin_token = \"0123456789abcdef\"\n"), &[]).0, Some(0));
    for (text, words) in [
        ("admin_token = \"short\"\n", "admin_token: a token has at least 16 bytes"),
        ("admin_token_file = \"missing\"\n", "admin_token_file: reading "),
        ("[explain]\n", "explain: it needs secret or secret_file"),
        ("[explain]\nsecret = \"short\"\n", "explain.secret: a secret has at least 16 bytes"),
        ("[explain]\nheader = \"host\"\nsecret = \"0123456789abcdef\"\n", "\"host\" does not begin with \"x-\""),
    ] {
        let (code, told) = check(text, &[]);
        assert!(code == Some(1) && told.contains(words), "{text}: {told}");
        assert!(!told.contains("0123456789abcdef"), "{told}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_moongate"))
        .args(["run", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("is no loopback address"), "{told}");
}
