//! The bundled filters on a live gateway, each on what it is for.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use moongate::plugin::bundled::BUNDLED;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use ring::{digest, hmac};
use tempfile::TempDir;

use crate::support::client::{Client, Reply, get, get_with};
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::raw::{in_front_of, raw, serving};

/// Answers with the request as it came: its line, and its fields in their order.
async fn mirror() -> Origin {
    Origin::answering(|request, _| {
        let fields = request.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()));
        let text = format!("{} {}\n{}", request.method(), request.uri(), fields.collect::<String>());
        Response::builder().header("access-control-allow-origin", "https://own.test").body(Full::from(text)).unwrap()
    })
    .await
}

/// A gateway in front of it with these filters for all routes.
fn filtering(origin: &Origin, filters: &str) -> Gateway {
    Gateway::of(&[origin], &format!("workers = 2\nfilters = [{filters}]"))
}

async fn send(gateway: &Gateway, request: http::request::Builder) -> Reply {
    let request = request.header("host", "shop.test").body(Full::<Bytes>::default()).unwrap();
    Client::to(gateway.http).await.send(request).await.unwrap()
}

fn has(reply: &Reply, line: &str) -> bool {
    reply.text().lines().any(|it| it == line)
}

#[test]
fn every_bundled_plugin_tells_what_it_is() {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in BUNDLED {
        let file = dir.path().join(format!("{name}.wasm"));
        fs::write(&file, bytes).unwrap();
        let mut inspect = std::process::Command::new(env!("CARGO_BIN_EXE_moongate"));
        let output = inspect.args(["plugin", "inspect"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(BUNDLED.len() > 20, "{}", BUNDLED.len());
}

#[tokio::test]
async fn paths_are_rewritten_and_clients_sent_elsewhere() {
    let origin = mirror().await;
    let rewriting = "{ plugin = \"rewrite-path\", config = { regex = '^/user/(\\d+)$', to = \"/u/$1\", query = { set = { \
                     lang = \"en\" }, remove = [\"debug\"] } } }";
    let gateway = filtering(&origin, rewriting);
    assert!(has(&get(gateway.http, "/s/user/7?a=1&debug=2").await, "GET /u/7?a=1&lang=en"));
    assert!(has(&get(gateway.http, "/s/user/x").await, "GET /user/x?lang=en"), "what does not match keeps its path");

    let gateway = filtering(&origin, "{ plugin = \"redirect\", config = { https = true } }");
    let reply = send(&gateway, Request::get("/s/a?b=c")).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (308, "https://shop.test/s/a?b=c"));
}

#[tokio::test]
async fn other_sites_are_told_what_they_may() {
    let config =
        "{ origins = [\"https://*.app.test\"], methods = [\"PUT\"], headers = [\"content-type\"], max_age = 60 }";
    let origin = mirror().await;
    let gateway = filtering(&origin, &format!("{{ plugin = \"cors\", config = {config} }}"));
    let preflight = |origin: &str| {
        let request = Request::builder().method(Method::OPTIONS).uri("/s/").header("origin", origin);
        request.header("access-control-request-method", "PUT")
    };
    let reply = send(&gateway, preflight("https://a.app.test")).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    assert_eq!(reply.header("access-control-allow-origin"), "https://a.app.test");
    assert!(reply.header("access-control-allow-methods").contains("PUT"));
    let reply = send(&gateway, preflight("https://evil.test")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (StatusCode::FORBIDDEN, ""));
    let reply = send(&gateway, Request::get("/s/").header("origin", "https://a.app.test")).await;
    assert_eq!(reply.header("access-control-allow-origin"), "https://a.app.test", "and not the endpoint's");
    assert!(reply.header("vary").to_lowercase().contains("origin"));
}

#[tokio::test]
async fn clients_are_told_apart_by_address() {
    let config = "trusted_proxies = [\"127.0.0.0/8\"]\n\
                  filters = [{ plugin = \"ip-allow\", config = { allow = [\"10.0.0.0/8\"], deny = [\"10.0.0.66\"] } }]";
    let origin = mirror().await;
    let gateway = Gateway::of(&[&origin], config);
    for (client, status) in [("10.1.2.3", 200), ("10.0.0.66", 403), ("192.0.2.1", 403), ("::ffff:10.9.9.9", 200)] {
        let reply = get_with(gateway.http, "/s/", &[("x-forwarded-for", client)]).await;
        assert_eq!(reply.status.as_u16(), status, "{client}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

#[tokio::test]
async fn names_and_passwords_come_from_a_file() {
    let hash = digest::digest(&digest::SHA256, b"\x01\x02secret");
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("users"), format!("ada:sha256:0102:{}\n", hex(hash.as_ref()))).unwrap();
    let origin = mirror().await;
    fs::write(dir.path().join("services.toml"), crate::support::gateway::services("s", &[&origin])).unwrap();
    let filter = "{ plugin = \"basic-auth\", files = { htpasswd = \"users\" }, config = { user_header = \"x-user\" } }";
    let gateway = Gateway::start_in(dir, &format!("filters = [{filter}]\n[auto_routes]\n"));
    let with = |text: &str| format!("Basic {}", base64(text.as_bytes(), STANDARD));
    let ask = async |authorization: &str| get_with(gateway.http, "/s/", &[("authorization", authorization)]).await;
    let reply = ask(&with("ada:secret")).await;
    assert!(has(&reply, "x-user: ada") && !reply.text().contains("authorization"), "{}", reply.text());
    for wrong in [with("ada:Secret"), with("bob:secret"), "Basic %%%".into(), "Bearer x".into(), String::new()] {
        let reply = ask(&wrong).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{wrong}");
        assert!(reply.header("www-authenticate").starts_with("Basic realm="), "{wrong}");
    }
    let forged = [("authorization", &*with("ada:secret")), ("x-user", "root")];
    assert!(!get_with(gateway.http, "/s/", &forged).await.text().contains("root"));
}

#[tokio::test]
async fn keys_are_checked_and_taken_away() {
    let filter = "{ plugin = \"key-auth\", config = { keys = { shop = \"a-long-random-key-of-32-letters\" }, \
                  name_header = \"x-client\" } }";
    let origin = mirror().await;
    let gateway = filtering(&origin, filter);
    let reply = get_with(gateway.http, "/s/", &[("x-api-key", "a-long-random-key-of-32-letters")]).await;
    assert!(has(&reply, "x-client: shop") && !reply.text().contains("random"), "{}", reply.text());
    for headers in [&[("x-api-key", "another")][..], &[]] {
        assert_eq!(get_with(gateway.http, "/s/", headers).await.status, StatusCode::UNAUTHORIZED);
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 (RFC 4648), with the padding of the standard alphabet.
fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            match place <= chunk.len() {
                true => text.push(alphabet[(bits >> (18 - 6 * place)) as usize & 63].into()),
                false if alphabet == STANDARD => text.push('='),
                false => {}
            }
        }
    }
    text
}

/// A token with this head and these claims, signed by `sign`.
fn token(head: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", base64(head.as_bytes(), URL), base64(claims.as_bytes(), URL));
    let signature = base64(&sign(signed.as_bytes()), URL);
    format!("Bearer {signed}.{signature}")
}

#[tokio::test]
async fn tokens_are_checked_with_a_secret_and_with_a_set_of_keys() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = |audience: &str, expires: u64| {
        format!("{{\"sub\":\"ada\",\"iss\":\"id.test\",\"aud\":\"{audience}\",\"exp\":{expires}}}")
    };
    let good = claims("shop", now + 60);
    let secret = b"a secret of at least 32 bytes, as it must be";
    let hs256 = |key: &[u8], claims: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        token("{\"alg\":\"HS256\"}", claims, |it| hmac::sign(&key, it).as_ref().to_vec())
    };
    let filter = format!(
        "{{ plugin = \"jwt\", config = {{ secret = \"{}\", algorithms = [\"HS256\"], issuer = \"id.test\", audience = \
         \"shop\", claim_headers = {{ x-user = \"sub\" }} }} }}",
        std::str::from_utf8(secret).unwrap()
    );
    let origin = mirror().await;
    let gateway = filtering(&origin, &filter);
    let ask = async |gateway: &Gateway, token: &str| {
        get_with(gateway.http, "/s/", &[("authorization", token), ("x-user", "root")]).await
    };
    let reply = ask(&gateway, &hs256(secret, &good)).await;
    assert!(has(&reply, "x-user: ada") && !reply.text().contains("root"), "{}", reply.text());
    let unsigned = token("{\"alg\":\"none\"}", &good, |_| Vec::new());
    let tampered = hs256(secret, &good).replacen('.', ".e", 1);
    for (wrong, why) in [
        (hs256(b"another secret that has 32 bytes", &good), "another key"),
        (hs256(secret, &claims("bank", now + 60)), "for others"),
        (hs256(secret, &claims("shop", now - 60)), "expired"),
        (unsigned, "unsigned"),
        (tampered, "tampered with"),
        ("Bearer x".into(), "no token"),
    ] {
        assert_eq!(ask(&gateway, &wrong).await.status, StatusCode::UNAUTHORIZED, "{why}");
    }

    let random = SystemRandom::new();
    let pair = || {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap()
    };
    let (one, two) = (pair(), pair());
    let jwk = |pair: &EcdsaKeyPair, kid: &str| {
        let point = pair.public_key().as_ref();
        let (x, y) = (base64(&point[1..33], URL), base64(&point[33..], URL));
        format!("{{\"kty\":\"EC\",\"crv\":\"P-256\",\"alg\":\"ES256\",\"kid\":\"{kid}\",\"x\":\"{x}\",\"y\":\"{y}\"}}")
    };
    let dir = TempDir::new().unwrap();
    let keys = format!("{{\"keys\":[{},{}]}}", jwk(&one, "one"), jwk(&two, "two"));
    fs::write(dir.path().join("keys.json"), keys).unwrap();
    fs::write(dir.path().join("services.toml"), crate::support::gateway::services("s", &[&origin])).unwrap();
    let filter = "{ plugin = \"jwt\", files = { jwks = \"keys.json\" }, config = { audience = \"shop\" } }";
    let gateway = Gateway::start_in(dir, &format!("filters = [{filter}]\n[auto_routes]\n"));
    let es256 = |pair: &EcdsaKeyPair, kid: &str| {
        let head = format!("{{\"alg\":\"ES256\",\"kid\":\"{kid}\"}}");
        token(&head, &good, |it| pair.sign(&random, it).unwrap().as_ref().to_vec())
    };
    for (pair, kid, status) in [(&one, "one", 200), (&two, "two", 200), (&one, "two", 401), (&pair(), "one", 401)] {
        assert_eq!(ask(&gateway, &es256(pair, kid)).await.status.as_u16(), status, "{kid}");
    }
    let shared = gateway.api("routes").await.to_string();
    assert!(!shared.contains("P-256"), "what came from a file is not shown: {shared}");
}

#[tokio::test]
async fn a_rate_holds_over_all_workers() {
    let filter = "{ plugin = \"rate-limit\", config = { rate = \"5/h\", burst = 5, by = { header = \"x-tenant\" } } }";
    let origin = mirror().await;
    let gateway = Gateway::of(&[&origin], &format!("workers = 4\nfilters = [{filter}]"));
    let mut passed = 0;
    for _ in 0..20 {
        // Each connection may come to another worker.
        let reply = get_with(gateway.http, "/s/", &[("x-tenant", "a")]).await;
        match reply.status {
            StatusCode::OK => passed += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                let wait: u32 = reply.header("retry-after").parse().unwrap();
                assert!((600..=720).contains(&wait), "{wait}");
                assert!(reply.header("ratelimit").contains("r=0"), "{}", reply.header("ratelimit"));
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(passed, 5);
    assert_eq!(get_with(gateway.http, "/s/", &[("x-tenant", "b")]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn ids_go_both_ways() {
    let filter = "{ plugin = \"request-id\", config = { format = \"uuid7\", trust = false } }";
    let origin = mirror().await;
    let gateway = filtering(&origin, filter);
    let reply = get_with(gateway.http, "/s/", &[("x-correlation-id", "mine")]).await;
    let id = reply.header("x-correlation-id").to_owned();
    assert!(id.len() == 36 && id.as_bytes()[14] == b'7', "{id}");
    assert!(has(&reply, &format!("x-correlation-id: {id}")));
    assert_ne!(get(gateway.http, "/s/").await.header("x-correlation-id"), id);
}

#[tokio::test]
async fn bodies_are_bounded_whether_they_say_their_length_or_not() {
    let endpoint = serving(|request| async move {
        let length = request.into_body().collect().await.map_or(0, |it| it.to_bytes().len());
        Response::new(Full::from(vec![b'x'; length]).map_err(|never| match never {}).boxed())
    })
    .await;
    let limit = |limits: &str| {
        in_front_of(&[endpoint], &format!("filters = [{{ plugin = \"body-limit\", config = {{ {limits} }} }}]"))
    };
    let gateway = limit("request = 10");
    let known = |length: usize| {
        format!(
            "POST /s/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{}",
            "a".repeat(length)
        )
    };
    let chunked = |length: usize| {
        let head = "POST /s/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{length:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(length))
    };
    for (request, status) in [(known(10), "200"), (known(11), "413"), (chunked(10), "200"), (chunked(11), "413")] {
        let answer = raw(gateway.http, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}\n{answer}");
    }
    let gateway = limit("response = 10");
    for (length, status) in [(10, "200"), (11, "502")] {
        let answer = raw(gateway.http, known(length).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn fields_of_documents_do_not_get_out() {
    let document = |body: &'static str, encoding: Option<&'static str>| async move {
        Origin::answering(move |_, _| {
            let response = Response::builder().header("content-type", "application/json").header("etag", "\"1\"");
            let response = encoding.into_iter().fold(response, |it, name| it.header("content-encoding", name));
            response.body(Full::from(body)).unwrap()
        })
        .await
    };
    let filter = "{ plugin = \"json-redact\", config = { fields = [\"user.password\", \"**.secret\"] } }";
    let origin = document(
        "{ \"user\": {\"name\": \"ada\", \"password\": \"x\"},\n \"list\": [{\"secret\": {\"a\": 1}}] }",
        None,
    )
    .await;
    let gateway = filtering(&origin, filter);
    let reply = get(gateway.http, "/s/").await;
    let expected =
        "{ \"user\": {\"name\": \"ada\", \"password\": \"[redacted]\"},\n \"list\": [{\"secret\": \"[redacted]\"}] }";
    assert_eq!((reply.text(), reply.header("etag")), (expected, ""));
    assert_eq!(reply.header("content-length"), expected.len().to_string());
    for origin in [document("{\"user\": ", None).await, document("{}", Some("gzip")).await] {
        let gateway = filtering(&origin, filter);
        assert_eq!(get(gateway.http, "/s/").await.status, StatusCode::BAD_GATEWAY, "what cannot be read is refused");
    }
}

/// A megabyte of numbers, which takes longest: within its time, and others are answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_document_is_redacted_in_time() {
    let body: String = format!("[{}0]", "1,".repeat(400_000));
    let length = body.len();
    let origin = Origin::answering(move |_, _: SocketAddr| {
        Response::builder().header("content-type", "application/json").body(Full::from(body.clone())).unwrap()
    })
    .await;
    let gateway = filtering(&origin, "{ plugin = \"json-redact\", config = { fields = [\"a\"] } }");
    let reply = tokio::time::timeout(Duration::from_secs(20), get(gateway.http, "/s/")).await.unwrap();
    assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, length));
}
