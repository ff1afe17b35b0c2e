//! Upgrades of HTTP/1.1: WebSocket through, everything else not by accident.

use std::time::{Duration, Instant};

use crate::case::{Group, Outcome, Severity::*, want};
use crate::client::Client;
use crate::lane::Lane;
use crate::origin::{Exchange, Then, answer};
use crate::stream::End;

const SECOND: Duration = Duration::from_secs(1);
const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, and sends back whatever comes.
fn echo(it: &mut Exchange<'_>) -> Then {
    it.send(SWITCH);
    let until = Instant::now() + Duration::from_secs(10);
    while let Ok(piece) = it.reader.take_some(usize::MAX, until) {
        it.send(piece);
    }
    Then::Close
}

fn upgraded(lane: &Lane, more: &str) -> Result<Client, crate::case::Failure> {
    let mut client = lane.client()?;
    client.send(format!("{ASK}{more}"));
    let response = client.response();
    want!(response.status == 101, "101", "{response}");
    let accept = response.field("sec-websocket-accept");
    want!(accept == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the endpoint's answer", "{accept:?}");
    want!(
        response.field("upgrade").is_some_and(|it| it.eq_ignore_ascii_case("websocket")),
        "Upgrade: websocket",
        "none"
    );
    Ok(client)
}

fn hear(client: &mut Client, wanted: &[u8]) -> Outcome {
    let got = client.reader.take(wanted.len(), Instant::now() + SECOND);
    want!(got.as_deref() == Ok(wanted), crate::bytes::show(wanted), "{got:?}");
    Ok(())
}

pub(super) fn fill(group: &mut Group) {
    const REFERENCE: &str = "RFC 9110 7.8; RFC 6455 4";
    group.add(Correctness, REFERENCE, "both-ways", |lane| {
        lane.main().answers(echo);
        let mut client = upgraded(lane, "")?;
        for piece in [&b"\x81\x05hello"[..], b"\0\xff\0", b"\r\n\r\n"] {
            client.send(piece);
            hear(&mut client, piece)?;
        }
        let request = lane.main().last();
        want!(
            request.list("upgrade").eq_ignore_ascii_case("websocket"),
            "Upgrade at the endpoint",
            "{}",
            request.list("upgrade")
        );
        want!(request.has("sec-websocket-key"), "the key at the endpoint", "none");
        Ok(())
    });
    group
        .add(Correctness, REFERENCE, "early-data-of-the-client", |lane| {
            lane.main().answers(echo);
            let mut client = upgraded(lane, "early")?;
            hear(&mut client, b"early")
        })
        .severity(Courtesy);
    group.add(Correctness, REFERENCE, "early-data-of-the-endpoint", |lane| {
        lane.main().answers(|it| {
            it.send(format!("{SWITCH}first words"));
            let _ = it.reader.fill(Instant::now() + Duration::from_secs(5));
            Then::Close
        });
        let mut client = upgraded(lane, "")?;
        hear(&mut client, b"first words")
    });
    group.add(Correctness, REFERENCE, "much-data", |lane| {
        lane.main().answers(echo);
        let mut client = upgraded(lane, "")?;
        let piece = vec![b'z'; 60_000];
        for _ in 0..20 {
            client.send(&piece);
            hear(&mut client, &piece)?;
        }
        Ok(())
    });
    group.add(Correctness, REFERENCE, "client-closes", |lane| {
        lane.main().answers(echo);
        drop(upgraded(lane, "")?);
        want!(lane.main().until_closed(SECOND * 3), "the endpoint's side closed too", "it stays open");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "endpoint-closes", |lane| {
        lane.main().answers(|it| {
            it.send(format!("{SWITCH}bye"));
            Then::Close
        });
        let mut client = upgraded(lane, "")?;
        hear(&mut client, b"bye")?;
        let end = client.end_within(SECOND * 3);
        want!(end == Some(End::Fin), "the client's side closed in order", "{end:?}");
        Ok(())
    });
    group.add(Courtesy, REFERENCE, "idle-longer-than-a-request-may-be", |lane| {
        lane.main().answers(echo);
        let mut client = upgraded(lane, "")?;
        std::thread::sleep(Duration::from_millis(2700));
        client.send("still there");
        hear(&mut client, b"still there")
    });
    group.add(Correctness, REFERENCE, "refused", |lane| {
        lane.main().says(answer(403, "no"), Then::Keep);
        let mut client = lane.client()?;
        client.send(ASK);
        let response = client.response();
        want!(response.status == 403 && response.body == b"no", "403", "{response}");
        if response.keeps() {
            lane.main().says(answer(200, "ok"), Then::Keep);
            client.send("GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let next = client.response();
            want!(next.ok(), "200 to the next request", "{next}");
        }
        Ok(())
    });
    for (name, status) in [("426", 426), ("200", 200), ("500", 500)] {
        // A gateway that believes in a tunnel which is none hands over whatever follows (websocket smuggling).
        group.add(Safety, "h2csmuggler, websocket smuggling (2019)", format!("no-tunnel-after-{name}"), move |lane| {
            lane.main().says(answer(status, "no"), Then::Keep);
            let mut client = lane.client()?;
            client.send(ASK.replace("Version: 13", "Version: 777"));
            let first = client.response();
            want!(first.status == status, status, "{first}");
            client.send("GET /admin HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client.end_within(SECOND / 2);
            let leaked = lane.main().requests().iter().any(|it| it.target.contains("admin"));
            want!(!leaked, "/admin at its own endpoint only", "at the endpoint of /");
            Ok(())
        });
    }
    for (name, request) in [
        ("http-1.0", ASK.replace("HTTP/1.1", "HTTP/1.0")),
        ("without-connection", ASK.replace("Connection: Upgrade\r\n", "")),
        (
            "h2c",
            ASK.replace("websocket", "h2c")
                .replace("Connection: Upgrade", "Connection: Upgrade, HTTP2-Settings")
                .replace("\r\n\r\n", "\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
        ),
    ] {
        // Not an upgrade for the gateway: then the endpoint's consent must not make it one.
        let severity = if name == "h2c" { Safety } else { Correctness };
        group.add(severity, "RFC 9110 7.8; RFC 9113 3.1", format!("no-tunnel-for-{name}"), move |lane| {
            lane.main().answers(|it| {
                let asked = it.request.has("upgrade");
                if !asked {
                    it.send(answer(200, "plain"));
                    return Then::Keep;
                }
                echo(it)
            });
            let mut client = lane.client()?;
            client.send(&request);
            let first = client.response();
            want!(first.status != 101, "no 101", "{first}");
            client.send("GET /admin HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client.end_within(SECOND / 2);
            let bytes = lane.main().bytes().concat();
            want!(crate::bytes::find(&bytes, b"GET /admin").is_none(), "no tunnel", "what followed at the endpoint");
            Ok(())
        });
    }
    group
        .add(Safety, REFERENCE, "other-protocol-than-asked", |lane| {
            lane.main().answers(|it| {
                it.send(SWITCH.replace("Upgrade: websocket", "Upgrade: h2c"));
                let _ = it.reader.fill(Instant::now() + SECOND * 3);
                Then::Close
            });
            let mut client = lane.client()?;
            client.send(ASK);
            let response = client.response();
            want!(response.status != 101, "an error", "{response} to {:?}", response.field("upgrade"));
            Ok(())
        })
        .severity(Correctness);
    group.add(Safety, "RFC 9110 7.8", "body-before-the-upgrade", |lane| {
        // The request's own body comes before the new protocol does.
        lane.main().answers(|it| {
            it.read_body();
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send(
            ASK.replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 41\r\n\r\n") + super::raw::SMUGGLED,
        );
        let response = client.response();
        want!(response.status != 101, "no 101", "{response}");
        Ok(())
    });
}
