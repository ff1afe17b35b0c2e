//! How a request and its answer go: expectations, interim answers, answers without bodies, and the next request.

use std::time::{Duration, Instant};

use super::raw::message;
use crate::bytes::find;
use crate::case::{Group, Severity::*, want};
use crate::client::ask;
use crate::origin::{Gate, Then, answer};
use crate::stream::{Broken, End};

const GET: &str = "GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n";
const GET_1_0: &str = "GET /c HTTP/1.0\r\nHost: a.test\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

fn expectation(group: &mut Group) {
    const REFERENCE: &str = "RFC 9110 10.1.1";
    const HEAD: &str = "POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    group.add(Correctness, REFERENCE, "expect-continue", |lane| {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 100 Continue\r\n\r\n");
            it.read_body();
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send(HEAD);
        let first = client.one("POST", Instant::now() + client.patience);
        want!(first.status == 100, "100", "{first}");
        client.send("hello");
        let last = client.response();
        want!(last.ok() && lane.main().last().body == b"hello", "200, and the body at the endpoint", "{last}");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "expect-refused-without-reading", |lane| {
        lane.main().says_unread("HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        let mut client = lane.client()?;
        client.send(HEAD);
        let first = client.one("POST", Instant::now() + client.patience);
        let last = if first.status == 100 {
            client.send("hello");
            client.response()
        } else {
            first
        };
        want!(last.status == 403 && last.whole(), "403", "{last}");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "expect-never-continued", |lane| {
        let mut client = lane.client()?;
        client.send(HEAD);
        // A client does not wait for ever.
        std::thread::sleep(Duration::from_millis(600));
        client.send("hello");
        let last = client.response();
        want!(last.ok() && lane.main().last().body == b"hello", "200, and the body at the endpoint", "{last}");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "expect-with-body-at-once", |lane| {
        let response = ask(lane.plain(), format!("{HEAD}hello"))?;
        want!(response.ok() && lane.main().last().body == b"hello", "200, and the body at the endpoint", "{response}");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "expect-in-1.0", |lane| {
        let response = ask(lane.plain(), HEAD.replace("HTTP/1.1", "HTTP/1.0") + "hello")?;
        want!(response.ok() && response.interim.is_empty(), "200 without 100", "{response}");
        Ok(())
    });
    group.add(Courtesy, REFERENCE, "expect-chunked", |lane| {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 100 Continue\r\n\r\n");
            it.read_body();
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send("POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n");
        let first = client.one("POST", Instant::now() + client.patience);
        want!(first.status == 100, "100", "{first}");
        client.send("5\r\nhello\r\n0\r\n\r\n");
        let last = client.response();
        want!(last.ok() && lane.main().last().body == b"hello", "200, and the body at the endpoint", "{last}");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "expect-unknown", |lane| {
        let response = ask(lane.plain(), message("GET /c HTTP/1.1", "Expect: something", ""))?;
        want!(matches!(response.status, 200 | 417 | 400), "417, or 200", "{response}");
        Ok(())
    });
    group.add(Safety, "CVE-2022-31394 and its like", "expect-then-smuggled", |lane| {
        // The client that got its final answer early and never sends the body: what it sends next is that body.
        lane.main().says_unread("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
        let mut client = lane.client()?;
        client.send("POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 41\r\nExpect: 100-continue\r\n\r\n");
        client.response();
        client.send(super::raw::SMUGGLED);
        client.end_within(SECOND);
        want!(lane.main().count() <= 1, "nothing run from the body", "{} requests", lane.main().count());
        Ok(())
    });
}

fn interim(group: &mut Group) {
    const REFERENCE: &str = "RFC 9110 15.2; RFC 8297";
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    for (name, before, expected) in [
        ("103", HINTS.to_owned(), vec![103]),
        ("102", "HTTP/1.1 102 Processing\r\n\r\n".to_owned(), vec![102]),
        ("several", format!("HTTP/1.1 102 Processing\r\n\r\n{HINTS}{HINTS}"), vec![102, 103, 103]),
        ("unknown", "HTTP/1.1 142 Odd\r\nX-Odd: 1\r\n\r\n".to_owned(), vec![142]),
    ] {
        group.add(Correctness, REFERENCE, format!("interim-{name}"), move |lane| {
            lane.main().says(before.clone() + &answer(200, "ok"), Then::Keep);
            let response = ask(lane.plain(), GET)?;
            let seen: Vec<u16> = response.interim.iter().map(|it| it.status).collect();
            want!(response.ok() && response.body == b"ok", "200", "{response}");
            want!(seen == expected, format!("{expected:?} before it"), "{seen:?}");
            let link = response.interim.iter().filter(|it| it.status == 103).all(|it| it.has("link"));
            want!(link, "Link in the 103", "none");
            Ok(())
        });
        let before = if name == "several" { format!("{HINTS}{HINTS}") } else { HINTS.to_owned() };
        group.add(Correctness, REFERENCE, format!("interim-{name}-not-to-1.0"), move |lane| {
            lane.main().says(before.clone() + &answer(200, "ok"), Then::Keep);
            let response = ask(lane.plain(), GET_1_0)?;
            want!(response.ok() && response.interim.is_empty(), "200 alone", "{response}");
            Ok(())
        });
    }
    group.add(Courtesy, REFERENCE, "interim-comes-at-once", |lane| {
        let gate = Gate::default();
        let their = gate.clone();
        lane.main().answers(move |it| {
            it.send(HINTS);
            their.pass(SECOND);
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send(GET);
        let hint = client.one("GET", Instant::now() + Duration::from_millis(800));
        want!(hint.status == 103, "103 before the answer is there", "{hint}");
        gate.open();
        want!(client.response().ok(), "200 after it", "something else");
        Ok(())
    });
    group.add(Correctness, "RFC 9110 15.2.1", "continue-unasked", |lane| {
        lane.main().says("HTTP/1.1 100 Continue\r\n\r\n".to_owned() + &answer(200, "ok"), Then::Keep);
        let response = ask(lane.plain(), GET)?;
        want!(response.ok() && response.body == b"ok", "200", "{response}");
        Ok(())
    });
}

fn bodiless(group: &mut Group) {
    for (name, method, bytes, status) in [
        ("head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 200),
        ("head-chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("head-unframed", "HEAD", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", 200),
        ("head-404", "HEAD", "HTTP/1.1 404 No\r\nContent-Length: 10\r\n\r\n", 404),
        ("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("304", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
        ("304-with-length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", 304),
        ("zero-length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ("zero-chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        ("205", "GET", "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", 205),
        ("post-204", "POST", "HTTP/1.1 204 No Content\r\n\r\n", 204),
    ] {
        group.add(Correctness, "RFC 9112 6.3; RFC 9110 8.6, 9.3.2", format!("bodiless-{name}"), move |lane| {
            lane.main().says(bytes, Then::Keep);
            let mut client = lane.client()?;
            client.send(format!("{method} /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"));
            let first = client.response_to(method);
            want!(
                first.status == status && first.whole() && first.body.is_empty(),
                format!("{status} without body"),
                "{first}"
            );
            let none = status != 204 || (!first.has("content-length") && !first.has("transfer-encoding"));
            want!(none, "neither length nor coding in a 204", "{:?}", first.fields);
            if !first.keeps() {
                return Ok(());
            }
            lane.main().says(answer(200, "next"), Then::Keep);
            client.send(GET);
            let second = client.response();
            want!(second.ok() && second.body == b"next", "the next answer after it", "{second}");
            Ok(())
        });
    }
    group.add(Courtesy, "RFC 9110 9.3.2", "head-keeps-length", |lane| {
        lane.main().says("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", Then::Keep);
        let response = ask(lane.plain(), "HEAD /c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(
            response.field("content-length") == Some("1000"),
            "Content-Length: 1000",
            "{:?}",
            response.field("content-length")
        );
        Ok(())
    });
    group.add(Correctness, "RFC 9112 6.3", "error-to-head-has-no-body", |lane| {
        let mut client = lane.client()?;
        client.send("HEAD /dead HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = client.response_to("HEAD");
        client.end_within(Duration::from_millis(100));
        let left = client.reader.buffer.clone();
        want!(
            response.status >= 500 && left.is_empty(),
            "502 without body",
            "{response}, then {}",
            crate::bytes::show(&left)
        );
        Ok(())
    });
}

fn connections(group: &mut Group) {
    const REFERENCE: &str = "RFC 9112 9.3, 9.6";
    for (name, version, line, keeps) in [
        ("1.1", "1.1", "X: y", true),
        ("1.1-close", "1.1", "Connection: close", false),
        ("1.1-close-upper-case", "1.1", "Connection: CLOSE", false),
        ("1.1-close-in-list", "1.1", "Connection: foo, close", false),
        ("1.1-close-in-second-line", "1.1", "Connection: keep-alive\r\nConnection: close", false),
        ("1.0", "1.0", "X: y", false),
        ("1.0-close", "1.0", "Connection: close", false),
        ("1.0-keep-alive", "1.0", "Connection: keep-alive", true),
    ] {
        // Keeping a 1.0 client's connection is allowed only.
        let severity = if name == "1.0-keep-alive" { Courtesy } else { Correctness };
        group.add(severity, REFERENCE, format!("persistence-{name}"), move |lane| {
            let mut client = lane.client()?;
            client.send(message(&format!("GET /c HTTP/{version}"), line, ""));
            let first = client.response();
            want!(first.ok(), "200", "{first}");
            want!(
                first.keeps() == keeps || !keeps && version == "1.0",
                format!("keeps: {keeps}"),
                "{:?}",
                first.field("connection")
            );
            if keeps {
                client.send(message(&format!("GET /c HTTP/{version}"), line, ""));
                let second = client.response();
                want!(second.ok(), "200 again", "{second}");
            } else {
                want!(client.end_within(SECOND) == Some(End::Fin), "closed in order", "{:?}", client.reader.end);
            }
            Ok(())
        });
    }
    group
        .add(Safety, "RFC 9112 9.6", "nothing-after-close", |lane| {
            let mut client = lane.client()?;
            client.send(message("GET /c HTTP/1.1", "Connection: close", super::raw::SMUGGLED));
            let first = client.response();
            want!(first.ok(), "200", "{first}");
            let (rest, _) = client.everything();
            want!(find(&rest, b"HTTP/1.1 2").is_none(), "nothing after it", "{}", crate::bytes::show(&rest));
            Ok(())
        })
        .severity(Correctness);
    group.add(Correctness, REFERENCE, "fifty-on-one-connection", |lane| {
        let mut client = lane.client()?;
        for nth in 0..50 {
            client.send(GET);
            let response = client.response();
            want!(response.ok(), "200 fifty times", "{response} as number {nth}");
        }
        let pooled = lane.main().connections();
        want!(pooled <= 5, "few connections to the endpoint", "{pooled}");
        Ok(())
    });
    for (name, requests) in [
        ("three-gets", vec![("GET", ""), ("GET", ""), ("GET", "")]),
        ("head-then-get", vec![("HEAD", ""), ("GET", "")]),
        ("post-then-get", vec![("POST", "hello"), ("GET", ""), ("POST", "world")]),
        ("ten-posts", vec![("POST", "x"); 10]),
    ] {
        group.add(Correctness, "RFC 9112 9.3.2", format!("pipelined-{name}"), move |lane| {
            lane.main().answers(|it| {
                it.read_body();
                let body = if it.request.method == "HEAD" { "" } else { it.request.target.as_str() };
                let length = it.request.target.len();
                let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                it.send(bytes);
                Then::Keep
            });
            let mut bytes = String::new();
            for (nth, (method, body)) in requests.iter().enumerate() {
                bytes += &format!(
                    "{method} /{nth} HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
            let mut client = lane.client()?;
            client.send(bytes);
            for (nth, (method, _)) in requests.iter().enumerate() {
                let response = client.response_to(method);
                let own = *method == "HEAD" || response.body == format!("/{nth}").as_bytes();
                want!(response.ok() && own, format!("answer {nth} in order"), "{response}");
            }
            want!(lane.main().count() == requests.len(), "each once at the endpoint", "{}", lane.main().count());
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9112 9.3.2", "pipelined-after-not-found", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            let bytes = if it.nth == 0 { answer(404, "no") } else { answer(200, "ok") };
            it.send(bytes);
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send(format!("{GET}{GET}"));
        let (first, second) = (client.response(), client.response());
        want!(first.status == 404 && second.ok(), "404, then 200", "{first}, then {second}");
        Ok(())
    });
    group
        .add(Correctness, "RFC 9112 9.8", "idle-connection-ends-in-order", |lane| {
            let mut client = lane.client()?;
            client.send(GET);
            want!(client.response().ok(), "200", "something else");
            let end = client.end();
            want!(
                end == Some(End::Fin) && client.reader.buffer.is_empty(),
                "closed in order, silently",
                "{end:?}, {}",
                crate::bytes::show(&client.reader.buffer)
            );
            Ok(())
        })
        .severity(Courtesy);
    group.add(Correctness, "RFC 9112 6.3", "timeout-is-504", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            let _ = it.reader.fill(Instant::now() + Duration::from_secs(8));
            Then::Close
        });
        let began = Instant::now();
        let response = ask(lane.plain(), GET)?;
        want!(response.status == 504, "504", "{response}");
        want!(began.elapsed() < Duration::from_secs(4), "after two seconds", "{:?}", began.elapsed());
        want!(lane.main().count() == 1, "one try", "{}", lane.main().count());
        Ok(())
    });
    group.add(Safety, "RFC 9112 8", "endpoint-stops-in-mid-body", |lane| {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
            let _ = it.reader.fill(Instant::now() + Duration::from_secs(8));
            Then::Close
        });
        let mut client = lane.client()?;
        client.patience = Duration::from_secs(6);
        client.send(GET);
        let response = client.response();
        let visible = matches!(response.broken, Some(Broken::Ended(_)));
        want!(visible, "broken off after two seconds", "{response}");
        Ok(())
    });
}

pub(super) fn fill(group: &mut Group) {
    expectation(group);
    interim(group);
    bodiless(group);
    connections(group);
}
