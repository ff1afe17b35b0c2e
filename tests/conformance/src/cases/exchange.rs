//! How a request and its answer go: interim answers, bodies of all kinds in both directions, early and late ends.

use std::time::{Duration, Instant};

use super::raw::message;
use crate::bytes::{chunked, find, values};
use crate::case::{Group, Severity::*, want};
use crate::client::{Framing, ask};
use crate::lane::Lane;
use crate::origin::{Gate, Then, answer};
use crate::stream::{Broken, End, reset};

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

/// Data that no two places have in common.
fn data(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 251 + at % 251) as u8).collect()
}

fn bodies(group: &mut Group) {
    const REFERENCE: &str = "RFC 9112 6, 7";
    for (name, size) in [("small", 10), ("64k", 64 << 10), ("3m", 3 << 20)] {
        for (framing, piece) in [("length", 0), ("chunked", 1000), ("chunked-big", 100_000), ("unframed", 0)] {
            for version in ["1.1", "1.0"] {
                group.add(Correctness, REFERENCE, format!("download-{name}-{framing}-to-{version}"), move |lane| {
                    let body = data(size);
                    let (head, then) = match framing {
                        "length" => (format!("Content-Length: {size}\r\n"), Then::Keep),
                        "unframed" => (String::new(), Then::Close),
                        _ => ("Transfer-Encoding: chunked\r\n".to_owned(), Then::Keep),
                    };
                    let mut bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
                    match piece {
                        0 => bytes.extend_from_slice(&body),
                        piece => bytes.extend([chunked(&body, piece), b"\r\n".to_vec()].concat()),
                    }
                    lane.main().says(bytes, then);
                    let response = ask(lane.plain(), format!("GET /c HTTP/{version}\r\nHost: a.test\r\n\r\n"))?;
                    want!(response.ok() && response.body == body, "200 with the same bytes", "{response}");
                    let plain = version == "1.1" || !response.has("transfer-encoding");
                    want!(plain, "no transfer coding to 1.0", "{:?}", response.field("transfer-encoding"));
                    Ok(())
                });
            }
        }
        for (framing, piece) in [("length", 0), ("chunked", 1000), ("chunked-big", 100_000)] {
            group.add(Correctness, REFERENCE, format!("upload-{name}-{framing}"), move |lane| {
                let body = data(size);
                let bytes = match piece {
                    0 => super::raw::post(format!("Content-Length: {size}"), &body),
                    piece => super::raw::post(
                        "Transfer-Encoding: chunked",
                        [chunked(&body, piece), b"\r\n".to_vec()].concat(),
                    ),
                };
                let response = ask(lane.plain(), bytes)?;
                let request = lane.main().last();
                want!(response.ok(), "200", "{response}");
                want!(
                    request.whole && request.body == body,
                    "the same bytes at the endpoint",
                    "{} bytes",
                    request.body.len()
                );
                Ok(())
            });
        }
    }
    group.add(Correctness, "RFC 9112 7.1", "chunked-to-1.0-kept-alive", |lane| {
        lane.main().says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::Keep);
        let response = ask(lane.plain(), message("GET /c HTTP/1.0", "Connection: keep-alive", ""))?;
        want!(response.ok() && response.body == b"ok", "200", "{response}");
        want!(response.framing != Framing::Chunked, "no chunks to 1.0", "{response}");
        Ok(())
    });
    group.add(Courtesy, "RFC 9110 6.5", "response-trailers", |lane| {
        lane.main().says(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
            Then::Keep,
        );
        let response = ask(lane.plain(), message("GET /c HTTP/1.1", "TE: trailers\r\nConnection: TE", ""))?;
        let seen = values(&response.trailers, "x-sum");
        want!(response.ok() && seen == ["7"], "200 with the trailer", "{response}, {:?}", response.trailers);
        Ok(())
    });
    group.add(Courtesy, "RFC 9110 6.5", "request-trailers", |lane| {
        let bytes =
            super::raw::post("Transfer-Encoding: chunked\r\nTrailer: X-Sum", "2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n");
        let response = ask(lane.plain(), bytes)?;
        let seen = lane.main().last().trailers;
        want!(response.ok() && values(&seen, "x-sum") == ["7"], "the trailer at the endpoint", "{response}, {seen:?}");
        Ok(())
    });
    for (name, line) in [
        ("content-length", "Content-Length: 5"),
        ("transfer-encoding", "Transfer-Encoding: chunked"),
        ("connection", "Connection: close"),
    ] {
        group.add(Correctness, "RFC 9110 6.5.1", format!("response-trailer-{name}"), move |lane| {
            lane.main().says(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{line}\r\n\r\n"),
                Then::Keep,
            );
            let response = ask(lane.plain(), message("GET /c HTTP/1.1", "TE: trailers\r\nConnection: TE", ""))?;
            want!(response.trailers.is_empty(), "none of it", "{response}, {:?}", response.trailers);
            Ok(())
        });
    }
    group.add(Safety, "RFC 9110 6.5", "trailers-to-1.0", |lane| {
        lane.main()
            .says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n", Then::Keep);
        let response = ask(lane.plain(), GET_1_0)?;
        want!(response.body == b"ok", "the body alone", "{response}: {}", crate::bytes::show(&response.body));
        Ok(())
    });
}

/// What arrives is passed on as it arrives.
fn streaming(group: &mut Group) {
    for (name, kind) in [
        ("chunked", "Content-Type: text/plain\r\nTransfer-Encoding: chunked"),
        ("events", "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked"),
        ("unframed", "Content-Type: text/event-stream"),
    ] {
        group.add(Correctness, "WHATWG HTML 9.2", format!("each-piece-at-once-{name}"), move |lane| {
            let gate = Gate::default();
            let their = gate.clone();
            let framed = kind.contains("chunked");
            lane.main().answers(move |it| {
                it.send(format!("HTTP/1.1 200 OK\r\n{kind}\r\n\r\n"));
                for nth in 0..5 {
                    let event = format!("data: {nth}\n\n");
                    it.send(if framed { format!("{:x}\r\n{event}\r\n", event.len()) } else { event });
                    if !their.pass(SECOND) {
                        return Then::Reset;
                    }
                }
                it.send(if framed { "0\r\n\r\n" } else { "" });
                if framed { Then::Keep } else { Then::Close }
            });
            let mut client = lane.client()?;
            client.send(GET);
            for nth in 0..5 {
                let until = Instant::now() + SECOND;
                let wanted = format!("data: {nth}\n\n");
                while find(&client.reader.buffer, wanted.as_bytes()).is_none() {
                    want!(
                        client.reader.fill(until).is_ok(),
                        format!("event {nth} before the next is sent"),
                        "nothing of it"
                    );
                }
                gate.open();
            }
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9112 7.1", "each-piece-of-a-request-at-once", |lane| {
        let mut client = lane.client()?;
        client.send("POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for nth in 1..=4 {
            client.send("5\r\nhello\r\n");
            let there = lane.main().until(SECOND, |it| it.first().is_some_and(|it| it.body.len() == nth * 5));
            want!(there, format!("piece {nth} at the endpoint before the next is sent"), "nothing of it");
        }
        client.send("0\r\n\r\n");
        let response = client.response();
        want!(response.ok(), "200", "{response}");
        Ok(())
    });
    group.add(Courtesy, "RFC 9110 7.5", "both-ways-at-once", |lane| {
        // The answer to each piece comes before the next piece is sent.
        lane.main().answers(|it| {
            it.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let until = Instant::now() + Duration::from_secs(5);
            let reader = &mut *it.reader;
            for _ in 0..3 {
                if reader.take(10, until).is_err() {
                    return Then::Reset;
                }
                reader.send(b"4\r\nyes \r\n");
            }
            reader.send(b"0\r\n\r\n");
            Then::Close
        });
        let mut client = lane.client()?;
        client.send("POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n");
        for nth in 1..=3 {
            client.send("5\r\nhello\r\n");
            let until = Instant::now() + SECOND;
            while client.reader.buffer.windows(4).filter(|it| it == b"yes ").count() < nth {
                want!(client.reader.fill(until).is_ok(), format!("answer {nth}"), "nothing of it");
            }
        }
        Ok(())
    });
}

fn early(group: &mut Group) {
    group.add(Correctness, "RFC 9112 9.5", "answer-before-the-body-ends", |lane| {
        lane.main().answers(|it| {
            it.send(answer(200, "early"));
            it.read_body();
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send("POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello");
        let response = client.response();
        want!(response.ok() && response.body == b"early", "200 while the body is under way", "{response}");
        Ok(())
    });
    for (name, then, size) in
        [("close", Then::Close, 5 << 20), ("reset", Then::Reset, 5 << 20), ("keep", Then::Keep, 200 << 10)]
    {
        group.add(Courtesy, "RFC 9112 9.6", format!("refused-in-mid-body-then-{name}"), move |lane| {
            lane.main().answers(move |it| {
                let _ = it.reader.take_some(1000, Instant::now() + SECOND);
                it.send("HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                // As an endpoint that cares lingers before it resets.
                std::thread::sleep(Duration::from_millis(200));
                then
            });
            let mut client = lane.client()?;
            client.send(format!("POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: {size}\r\n\r\n"));
            for _ in 0..size / 65_536 {
                if !client.send(vec![b'x'; 65_536]) {
                    break;
                }
            }
            let response = client.response();
            want!(response.status == 413, "413", "{response}");
            Ok(())
        });
    }
    group.add(Safety, "RFC 9112 9.3", "early-answer-then-next-request", |lane| {
        // The unread rest of a body must not become a request.
        lane.main().says_unread(answer(200, "early"));
        let mut client = lane.client()?;
        client.send(super::raw::post("Content-Length: 46", super::raw::SMUGGLED));
        let first = client.response();
        want!(first.status == 200 || first.status >= 500, "200", "{first}");
        client.send("12345");
        client.send(GET);
        client.end_within(Duration::from_millis(300));
        Ok(())
    });
}

fn leaving(group: &mut Group) {
    group.add(Courtesy, "RFC 9112 9.6", "half-closed-client", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            std::thread::sleep(Duration::from_millis(200));
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut client = lane.client()?;
        client.send(GET);
        client.reader.finish();
        let response = client.response();
        want!(response.ok(), "200 to a client that only listens", "{response}");
        Ok(())
    });
    for (name, bytes) in [
        ("length", "POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nhello"),
        ("chunked", "POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("in-chunk", "POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
    ] {
        for how in ["fin", "reset"] {
            group.add(Safety, "RFC 9112 8", format!("client-leaves-in-mid-body-{name}-{how}"), move |lane| {
                let mut client = lane.client()?;
                client.send(bytes);
                lane.main().until(Duration::from_millis(300), |it| !it.is_empty());
                if how == "reset" {
                    reset(client.reader.stream.socket());
                }
                drop(client);
                let whole = lane.main().until(Duration::from_millis(300), |it| it.iter().any(|it| it.whole));
                want!(!whole, "no whole request at the endpoint", "one that ends where the client left");
                want!(
                    lane.main().until_closed(Duration::from_secs(3)),
                    "the endpoint's connection closed",
                    "it stays open"
                );
                Ok(())
            });
        }
    }
    group.add(Correctness, "RFC 9112 9.5", "client-leaves-in-mid-answer", |lane| {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let until = Instant::now() + Duration::from_secs(8);
            while Instant::now() < until && it.send(chunk()) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Then::Reset
        });
        let mut client = lane.client()?;
        client.send(GET);
        want!(client.reader.fill(Instant::now() + SECOND).is_ok(), "the start of an answer", "nothing");
        reset(client.reader.stream.socket());
        drop(client);
        let ended = lane.main().until_closed(Duration::from_secs(3));
        want!(ended, "the endpoint's connection closed soon", "it goes on");
        Ok(())
    });
    group.add(Courtesy, "RFC 9110 15.5.9", "client-leaves-before-the-answer", |lane| {
        lane.main().answers(|it| {
            it.read_body();
            let until = Instant::now() + Duration::from_secs(8);
            while it.reader.fill(until).is_ok() {}
            Then::Close
        });
        let mut client = lane.client()?;
        client.send(GET);
        lane.main().until(SECOND, |it| !it.is_empty());
        reset(client.reader.stream.socket());
        drop(client);
        want!(
            lane.main().until_closed(Duration::from_millis(1500)),
            "the endpoint's connection closed at once",
            "it stays"
        );
        Ok(())
    });
}

fn chunk() -> Vec<u8> {
    [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat()
}

/// Bounded memory and a bounded wait for those who do not read.
fn pressure(group: &mut Group) {
    fn endless(lane: &Lane) {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let piece = chunk().repeat(64);
            let mut sent = 0;
            while sent < 512 << 20 && it.send(&piece) {
                sent += piece.len();
            }
            Then::Reset
        });
    }
    group
        .add(Safety, "RFC 9293 3.8.6", "answer-to-one-that-does-not-read", |lane| {
            endless(lane);
            let before = lane.memory();
            let mut clients = Vec::new();
            for _ in 0..8 {
                let mut client = lane.client()?;
                client.send(GET);
                clients.push(client);
            }
            std::thread::sleep(Duration::from_millis(1500));
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 16, "less than 2 MiB for each", "{grown} MiB for eight");
            Ok(())
        })
        .heavy();
    group
        .add(Safety, "RFC 9293 3.8.6", "upload-to-one-that-does-not-read", |lane| {
            lane.main().answers(|_| {
                std::thread::sleep(Duration::from_secs(3));
                Then::Reset
            });
            let before = lane.memory();
            let mut client = lane.client()?;
            client.reader.send(b"POST /c HTTP/1.1\r\nHost: a.test\r\nContent-Length: 536870912\r\n\r\n");
            let (piece, mut sent, began) = (vec![b'x'; 1 << 20], 0, Instant::now());
            while began.elapsed() < Duration::from_millis(1500) && sent < 512 && client.send(&piece) {
                sent += 1;
            }
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 16, "less than 16 MiB more", "{grown} MiB");
            want!(sent < 64, "no more taken than the endpoint takes", "{sent} MiB taken");
            Ok(())
        })
        .heavy();
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
    bodies(group);
    streaming(group);
    early(group);
    leaving(group);
    pressure(group);
    connections(group);
}
