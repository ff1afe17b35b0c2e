//! HTTP/2 from clients as it should be: requests, bodies under flow control, trailers, WebSocket, and towards endpoints.

use std::time::{Duration, Instant};

use crate::case::{Failure, Group, Severity::*, want};
use crate::h2::{DATA, END_HEADERS, END_STREAM, H2, HEADERS, PADDED, PRIORITISED, WINDOW_UPDATE};
use crate::h2client::{head, head_with, open, open_with};
use crate::hpack::encode;
use crate::lane::Lane;
use crate::origin::{Exchange, Gate, Then, answer};
use crate::peer::Need;

const SECOND: Duration = Duration::from_secs(1);

fn get(lane: &Lane, path: &str) -> Result<(H2, crate::h2::Message), Failure> {
    let mut h2 = open(lane)?;
    h2.headers(1, &head("GET", path), true);
    let message = h2.answer(1);
    Ok((h2, message))
}

fn requests(group: &mut Group) {
    const REFERENCE: &str = "RFC 9113 8";
    group.add(Correctness, REFERENCE, "get", |lane| {
        let (_, message) = get(lane, "/c")?;
        let request = lane.main().last();
        want!(message.ok() && message.body == b"ok", "200", "{message}");
        want!(request.method == "GET" && request.target == "/c", "GET /c at the endpoint", "{}", request.target);
        want!(request.list("host") == "a.test", ":authority as Host", "host: {}", request.list("host"));
        Ok(())
    });
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        group.add(Correctness, REFERENCE, format!("method-{}", method.to_lowercase()), move |lane| {
            let mut h2 = open(lane)?;
            h2.headers(1, &head(method, "/c"), true);
            let message = h2.answer(1);
            want!(message.ok() && lane.main().last().method == method, "200", "{message}");
            want!(message.body.is_empty() == (method == "HEAD"), "a body, but to HEAD", "{message}");
            Ok(())
        });
    }
    for (name, length) in [("post-with-length", true), ("post-without-length", false)] {
        group.add(Correctness, REFERENCE, name, move |lane| {
            let mut h2 = open(lane)?;
            let more: &[(&str, &str)] = if length { &[("content-length", "5")] } else { &[] };
            h2.headers(1, &head_with("POST", "/c", more), false);
            h2.data(1, "hel", false);
            h2.data(1, "lo", true);
            let message = h2.answer(1);
            let request = lane.main().last();
            want!(
                message.ok() && request.whole && request.body == b"hello",
                "200, and hello at the endpoint",
                "{message}"
            );
            Ok(())
        });
    }
    group.add(Correctness, REFERENCE, "empty-data-ends-the-stream", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head("POST", "/c"), false);
        h2.data(1, "", true);
        let message = h2.answer(1);
        want!(message.ok(), "200", "{message}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 5.1.1", "many-streams-one-after-the-other", |lane| {
        let mut h2 = open(lane)?;
        for stream in (1..100).step_by(2) {
            h2.headers(stream, &head("GET", "/c"), true);
            let message = h2.answer(stream);
            want!(message.ok(), "200 each time", "{message} on stream {stream}");
        }
        Ok(())
    });
    group.add(Correctness, "RFC 9113 5.1.2", "many-streams-at-once", |lane| {
        let mut h2 = open(lane)?;
        let streams: Vec<u32> = (0..30).map(|it| it * 2 + 1).collect();
        for stream in &streams {
            h2.headers(*stream, &head("GET", "/c"), true);
        }
        for stream in streams {
            let message = h2.answer(stream);
            want!(message.ok(), "200 each", "{message} on stream {stream}");
        }
        Ok(())
    });
    group.add(Correctness, "RFC 9113 5", "a-slow-one-holds-nobody-up", |lane| {
        let gate = Gate::default();
        let their = gate.clone();
        lane.main().answers(move |it| {
            it.read_body();
            if it.request.target == "/slow" {
                their.pass(SECOND * 2);
            }
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head("GET", "/slow"), true);
        h2.headers(3, &head("GET", "/fast"), true);
        h2.patience = SECOND;
        let fast = h2.answer(3);
        want!(fast.ok(), "200 before the slow one", "{fast}");
        gate.open();
        let slow = h2.answer(1);
        want!(slow.ok(), "200 then", "{slow}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 8.2.3", "cookie-crumbs-are-joined", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("GET", "/c", &[("cookie", "a=b"), ("cookie", "c=d")]), true);
        let message = h2.answer(1);
        let seen = crate::bytes::values(&lane.main().last().fields, "cookie").join("|");
        want!(message.ok() && seen == "a=b; c=d", "Cookie: a=b; c=d", "{message}, {seen}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 8.2.2", "te-trailers-is-allowed", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("GET", "/c", &[("te", "trailers")]), true);
        let message = h2.answer(1);
        want!(message.ok(), "200", "{message}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 8.3.1", "options-asterisk", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head("OPTIONS", "*"), true);
        let message = h2.answer(1);
        want!(message.status() != 0, "an answer", "{message}");
        let target = lane.main().last().target;
        want!(matches!(target.as_str(), "" | "*"), "answered, or * at the endpoint", "{target}");
        Ok(())
    });
    group
        .add(Courtesy, "RFC 9113 3.3", "both-protocols-on-one-port", |lane| {
            let (_, message) = get(lane, "/c")?;
            let response = crate::client::ask(lane.h2(), "GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
            want!(message.ok() && response.ok(), "200 by both", "{message}, {response}");
            Ok(())
        })
        .needs(Need::OnePort);
    for (name, fields) in [
        ("connection", "Connection: keep-alive\r\nKeep-Alive: timeout=5"),
        ("transfer-encoding", "X: y"),
        ("upgrade", "Connection: Upgrade\r\nUpgrade: h2c"),
        ("proxy-connection", "Proxy-Connection: close"),
        ("named", "Connection: X-Named\r\nX-Named: 1"),
    ] {
        group.add(Correctness, "RFC 9113 8.2.2", format!("no-{name}-in-an-answer"), move |lane| {
            lane.main().says(
                format!("HTTP/1.1 200 OK\r\n{fields}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
                Then::Keep,
            );
            let (_, message) = get(lane, "/c")?;
            let bad = ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "x-named"];
            let seen: Vec<_> = bad.iter().filter(|it| message.field(it).is_some()).collect();
            want!(message.ok() && seen.is_empty(), "200 without connection fields", "{message} with {seen:?}");
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9113 8.2.1", "names-in-lower-case", |lane| {
        lane.main().says("HTTP/1.1 200 OK\r\nX-UPPER: Yes\r\nContent-Length: 2\r\n\r\nok", Then::Keep);
        let (_, message) = get(lane, "/c")?;
        want!(message.ok() && message.field("x-upper") == Some("Yes"), "x-upper: Yes", "{message}");
        Ok(())
    });
}

fn interim(group: &mut Group) {
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n";
    group.add(Correctness, "RFC 8297; RFC 9113 8.1", "interim-103", |lane| {
        lane.main().says(HINTS.to_owned() + HINTS + &answer(200, "ok"), Then::Keep);
        let (_, message) = get(lane, "/c")?;
        want!(message.ok() && message.interim.len() == 2, "103 twice, then 200", "{message}");
        Ok(())
    });
    group.add(Correctness, "RFC 9110 10.1.1", "expect-continue", |lane| {
        lane.main().answers(|it| {
            it.send("HTTP/1.1 100 Continue\r\n\r\n");
            it.read_body();
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/c", &[("expect", "100-continue"), ("content-length", "5")]), false);
        let first = h2.answer_until(1, |it| !it.interim.is_empty());
        want!(first.interim.len() == 1, "100", "{first}");
        h2.data(1, "hello", true);
        let message = h2.answer(1);
        want!(message.ok() && lane.main().last().body == b"hello", "200", "{message}");
        Ok(())
    });
}

/// Bodies, and who may send how much of them.
fn flow(group: &mut Group) {
    const REFERENCE: &str = "RFC 9113 5.2, 6.9";
    for size in [100_000, 3 << 20] {
        group.add(Correctness, REFERENCE, format!("upload-of-{size}"), move |lane| {
            let mut h2 = open(lane)?;
            h2.headers(1, &head("POST", "/c"), false);
            let body: Vec<u8> = (0..size).map(|at| (at % 253) as u8).collect();
            let sent = h2.upload(1, &body, true);
            let message = h2.answer(1);
            want!(
                message.ok() && lane.main().last().body == body,
                "all of it at the endpoint",
                "{message}, {sent} sent"
            );
            Ok(())
        });
        group.add(Correctness, REFERENCE, format!("download-of-{size}"), move |lane| {
            lane.main().says(answer(200, &"x".repeat(size)), Then::Keep);
            let (_, message) = get(lane, "/c")?;
            want!(message.ok() && message.body.len() == size, "all of it", "{message}");
            Ok(())
        });
    }
    group
        .add(Safety, REFERENCE, "no-more-than-the-window", |lane| {
            lane.main().says(answer(200, &"x".repeat(1 << 20)), Then::Keep);
            let mut h2 = open_with(lane, &[(4, 1000)])?;
            h2.generous = false;
            h2.headers(1, &head("GET", "/c"), true);
            h2.patience = Duration::from_millis(500);
            let message = h2.answer(1);
            want!(message.body.len() == 1000 && !message.ended, "1000 bytes", "{message}");
            h2.frame(WINDOW_UPDATE, 0, 1, 500u32.to_be_bytes());
            let message = h2.answer(1);
            want!(message.body.len() == 1500, "500 more", "{message}");
            Ok(())
        })
        .severity(Correctness);
    group.add(Correctness, "RFC 9113 6.9.2", "window-changed-by-settings", |lane| {
        lane.main().says(answer(200, &"x".repeat(5000)), Then::Keep);
        let mut h2 = open_with(lane, &[(4, 0)])?;
        h2.headers(1, &head("GET", "/c"), true);
        let head = h2.answer_until(1, |it| it.status() != 0);
        want!(head.status() == 200 && head.body.is_empty(), "a head alone", "{head}");
        h2.set(&[(4, 10_000)]);
        let message = h2.answer(1);
        want!(message.ok() && message.body.len() == 5000, "all of it", "{message}");
        Ok(())
    });
    group.add(Correctness, REFERENCE, "connection-window-is-shared", |lane| {
        lane.main().says(answer(200, &"x".repeat(50_000)), Then::Keep);
        let mut h2 = open(lane)?;
        h2.generous = false;
        h2.headers(1, &head("GET", "/c"), true);
        h2.headers(3, &head("GET", "/c"), true);
        h2.patience = Duration::from_millis(500);
        let both = [h2.answer(1).body.len(), h2.answer(3).body.len()];
        let sum: usize = both.iter().sum();
        want!(sum == 65_535, "65,535 bytes on both", "{both:?}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 4.2", "frames-as-large-as-allowed", |lane| {
        lane.main().says(answer(200, &"x".repeat(60_000)), Then::Keep);
        let mut h2 = open(lane)?;
        h2.headers(1, &head("GET", "/c"), true);
        let until = Instant::now() + SECOND * 3;
        let mut largest = 0;
        while !h2.message(1).ended {
            let Ok(frame) = h2.step(until) else { break };
            largest = largest.max(frame.payload.len());
        }
        want!(h2.message(1).ok() && largest <= 16_384, "frames up to 16,384 bytes", "{largest}");
        Ok(())
    });
    group
        .add(Safety, "RFC 9113 5.2.2", "upload-to-one-that-does-not-read", |lane| {
            lane.main().answers(|_| {
                std::thread::sleep(SECOND * 3);
                Then::Reset
            });
            let before = lane.memory();
            let mut h2 = open(lane)?;
            h2.patience = Duration::from_millis(1500);
            for stream in [1, 3, 5, 7, 9, 11, 13, 15] {
                h2.headers(stream, &head("POST", "/c"), false);
            }
            let sent: usize = [1, 3, 5, 7].iter().map(|stream| h2.upload(*stream, &vec![b'x'; 64 << 20], true)).sum();
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(
                sent < 64 << 20 && grown < 24,
                "bounded by the window",
                "{} MiB taken, {grown} MiB of memory",
                sent >> 20
            );
            Ok(())
        })
        .heavy();
}

fn trailers(group: &mut Group) {
    group.add(Courtesy, "RFC 9113 8.1", "trailers-of-an-answer", |lane| {
        lane.main().says(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
            Then::Keep,
        );
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("GET", "/c", &[("te", "trailers")]), true);
        let message = h2.answer(1);
        want!(
            message.ok() && message.trailer("x-sum") == Some("7"),
            "200 with the trailer",
            "{message}, {:?}",
            message.trailers
        );
        Ok(())
    });
    group.add(Courtesy, "RFC 9113 8.1", "trailers-of-a-request", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head("POST", "/c"), false);
        h2.data(1, "hi", false);
        h2.headers(1, &[("x-sum", "7")], true);
        let message = h2.answer(1);
        let request = lane.main().last();
        want!(message.ok() && request.body == b"hi", "200", "{message}");
        want!(
            crate::bytes::values(&request.trailers, "x-sum") == ["7"],
            "the trailer at the endpoint",
            "{:?}",
            request.trailers
        );
        Ok(())
    });
    for (name, field) in [
        ("content-length", ("content-length", "3")),
        ("host", ("host", "evil.test")),
        ("x-forwarded-for", ("x-forwarded-for", "6.6.6.6")),
    ] {
        group.add(Safety, "RFC 9110 6.5.1", format!("trailer-{name}-not-to-the-endpoint"), move |lane| {
            let mut h2 = open(lane)?;
            h2.headers(1, &head("POST", "/c"), false);
            h2.data(1, "hi", false);
            h2.headers(1, &[field], true);
            h2.answer(1);
            let seen = lane.main().last().trailers;
            want!(crate::bytes::values(&seen, field.0).is_empty(), "none of it", "{seen:?}");
            Ok(())
        });
    }
}

fn ends(group: &mut Group) {
    for (name, then, bytes) in [
        ("length-fin", Then::Close, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        ("length-reset", Then::Reset, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        ("chunked-fin", Then::Close, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("chunked-reset", Then::Reset, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        ("bad-chunk", Then::Keep, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"),
        ("unframed-reset", Then::Reset, "HTTP/1.1 200 OK\r\n\r\nhalf"),
    ] {
        group.add(Safety, "RFC 9113 8.1.1", format!("broken-off-{name}"), move |lane| {
            lane.main().answers(move |it| {
                it.send(bytes);
                std::thread::sleep(Duration::from_millis(100));
                then
            });
            let (_, message) = get(lane, "/c")?;
            want!(message.reset.is_some() || message.status() >= 500, "a reset, or an error", "{message}");
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9113 8.1", "early-answer", |lane| {
        lane.main().says_unread("HTTP/1.1 413 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
        let mut h2 = open(lane)?;
        h2.headers(1, &head("POST", "/c"), false);
        h2.data(1, "begin", false);
        let message = h2.answer(1);
        want!(message.status() == 413 && message.ended && message.reset.is_none_or(|it| it == 0), "413", "{message}");
        h2.headers(3, &head("GET", "/dead"), true);
        let next = h2.answer(3);
        want!(next.status() >= 500, "the connection goes on", "{next}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 5.4.2", "client-resets-in-mid-body", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head("POST", "/c"), false);
        h2.data(1, "hello", false);
        lane.main().until(SECOND, |it| !it.is_empty());
        h2.frame(crate::h2::RST_STREAM, 0, 1, 8u32.to_be_bytes());
        let whole = lane.main().until(Duration::from_millis(300), |it| it.iter().any(|it| it.whole));
        want!(!whole, "no whole request at the endpoint", "one that ends where the client left");
        h2.headers(3, &head("GET", "/c"), true);
        let next = h2.answer(3);
        want!(next.ok(), "the connection goes on", "{next}");
        Ok(())
    });
    group.add(Courtesy, "RFC 9113 5.4.2", "client-resets-before-the-answer", |lane| {
        lane.main().answers(|it| {
            let until = Instant::now() + SECOND * 6;
            while it.reader.fill(until).is_ok() {}
            Then::Close
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head("GET", "/c"), true);
        lane.main().until(SECOND, |it| !it.is_empty());
        h2.frame(crate::h2::RST_STREAM, 0, 1, 8u32.to_be_bytes());
        want!(lane.main().until_closed(Duration::from_millis(1500)), "the endpoint's request given up", "it goes on");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 6.8", "goaway-of-the-client-lets-streams-end", |lane| {
        lane.main().answers(|it| {
            std::thread::sleep(Duration::from_millis(200));
            it.send(answer(200, "ok"));
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head("GET", "/c"), true);
        h2.frame(crate::h2::GOAWAY, 0, 0, [0; 8]);
        let message = h2.answer(1);
        want!(message.ok(), "200", "{message}");
        Ok(())
    });
    group.add(Courtesy, "RFC 9113 6.8, 9.1", "idle-connection-ends-with-goaway", |lane| {
        let (mut h2, message) = get(lane, "/c")?;
        want!(message.ok(), "200", "{message}");
        let end = h2.end();
        want!(
            end.is_some() && h2.goaway.is_some_and(|(_, code)| code == 0),
            "GOAWAY with no error, and the end",
            "{end:?}, {:?}",
            h2.goaway
        );
        Ok(())
    });
    group.add(Correctness, "RFC 9113 6.2, 6.1", "padding-and-priority", |lane| {
        let mut h2 = open(lane)?;
        let mut payload = vec![3, 0, 0, 0, 0, 15];
        payload.extend(encode(&head("POST", "/c")));
        payload.extend([0; 3]);
        h2.frame(HEADERS, END_HEADERS | PADDED | PRIORITISED, 1, payload);
        h2.frame(DATA, END_STREAM | PADDED, 1, b"\x04hello\0\0\0\0");
        let message = h2.answer(1);
        want!(message.ok() && lane.main().last().body == b"hello", "200, and hello at the endpoint", "{message}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 6.10", "head-in-continuations", |lane| {
        let mut h2 = open(lane)?;
        let block = encode(&head_with("GET", "/c", &[("x-long", &"y".repeat(3000))]));
        let pieces: Vec<&[u8]> = block.chunks(700).collect();
        for (nth, piece) in pieces.iter().enumerate() {
            let kind = if nth == 0 { HEADERS } else { crate::h2::CONTINUATION };
            let mut flags = if nth + 1 == pieces.len() { END_HEADERS } else { 0 };
            if nth == 0 {
                flags |= END_STREAM;
            }
            h2.frame(kind, flags, 1, piece);
        }
        let message = h2.answer(1);
        want!(message.ok() && lane.main().last().list("x-long").len() == 3000, "200", "{message}");
        Ok(())
    });
}

/// Switches, and sends back whatever comes.
fn websocket(it: &mut Exchange<'_>) -> Then {
    // Over HTTP/2 there is no key; the gateway makes one for HTTP/1.1, and checks the answer to it.
    let accept = super::accept::of(it.request.field("sec-websocket-key").unwrap_or_default());
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    it.send(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n"));
    let until = Instant::now() + SECOND * 6;
    while let Ok(piece) = it.reader.take_some(usize::MAX, until) {
        it.send(piece);
    }
    Then::Close
}

/// WebSocket over HTTP/2.
fn extended_connect(group: &mut Group) {
    const FIELDS: &[(&str, &str)] = &[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/ws"),
        (":authority", "a.test"),
        ("sec-websocket-version", "13"),
    ];
    group
        .add(Correctness, "RFC 8441 3", "websocket-announced", |lane| {
            let h2 = open(lane)?;
            want!(h2.settings.get(&8) == Some(&1), "SETTINGS_ENABLE_CONNECT_PROTOCOL", "{:?}", h2.settings);
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    group
        .add(Correctness, "RFC 8441 5", "websocket-both-ways", |lane| {
            lane.main().answers(websocket);
            let mut h2 = open(lane)?;
            h2.headers(1, FIELDS, false);
            let head = h2.answer_until(1, |it| it.status() != 0);
            want!(head.status() == 200 && !head.ended, "200", "{head}");
            h2.data(1, "hello", false);
            let echo = h2.answer_until(1, |it| it.body == b"hello");
            want!(echo.body == b"hello", "hello", "{echo}");
            let request = lane.main().last();
            want!(
                request.method == "GET" && request.list("upgrade").eq_ignore_ascii_case("websocket"),
                "an upgrade at the endpoint",
                "{}",
                request.method
            );
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    group
        .add(Courtesy, "RFC 8441 5", "websocket-end", |lane| {
            lane.main().answers(websocket);
            let mut h2 = open(lane)?;
            h2.headers(1, FIELDS, false);
            let head = h2.answer_until(1, |it| it.status() != 0);
            want!(head.status() == 200, "200", "{head}");
            h2.data(1, "", true);
            want!(lane.main().until_closed(SECOND * 3), "the endpoint's side closed", "it stays open");
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    group
        .add(Correctness, "RFC 8441 5", "websocket-refused", |lane| {
            lane.main().says(answer(403, "no"), Then::Keep);
            let mut h2 = open(lane)?;
            h2.headers(1, FIELDS, false);
            let message = h2.answer_until(1, |it| it.status() != 0);
            want!(message.status() == 403, "403", "{message}");
            Ok(())
        })
        .needs(Need::ExtendedConnect);
    for (name, protocol) in [("connect", None), ("connect-unknown-protocol", Some("foo"))] {
        group.add(Safety, "RFC 9110 9.3.6; RFC 8441 4", format!("{name}-refused"), move |lane| {
            let mut h2 = open(lane)?;
            match protocol {
                None => h2.headers(1, &[(":method", "CONNECT"), (":authority", "a.test:443")], false),
                Some(it) => h2.headers(1, &head_with("CONNECT", "/c", &[(":protocol", it)]), false),
            };
            let message = h2.answer_until(1, |it| it.status() != 0);
            want!(message.refused(), "refused", "{message}");
            Ok(())
        });
    }
}

/// Endpoints that speak HTTP/2, and gRPC.
fn endpoints(group: &mut Group) {
    fn grpc(lane: &Lane) {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            h2.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
            h2.data(stream, b"\0\0\0\0\x02ok", false);
            h2.headers(stream, &[("grpc-status", "0"), ("grpc-message", "fine")], true);
            Then::Keep
        });
    }
    const CALL: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "1S")];
    group.add(Correctness, "RFC 9113 3.3", "endpoint-get-from-1.1", |lane| {
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\nX-A: b\r\n\r\n")?;
        let request = lane.origins.h2.last();
        want!(response.ok() && response.body == b"ok", "200", "{response}, {:?}", lane.origins.h2.strangers());
        want!(
            request.field(":path") == Some("/h2c") && request.field("x-a") == Some("b"),
            "the request at the endpoint",
            "{:?}",
            request.field(":path")
        );
        want!(
            request.field(":authority").or(request.field("host")) == Some("a.test"),
            "its authority",
            "{:?}",
            request.field(":authority")
        );
        Ok(())
    });
    group.add(Correctness, "RFC 9113 3.3", "endpoint-post-from-1.1", |lane| {
        let response = crate::client::ask(
            lane.plain(),
            "POST /h2c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )?;
        want!(response.ok() && lane.origins.h2.last().body == b"hello", "200, and hello at the endpoint", "{response}");
        want!(
            lane.origins.h2.last().field("transfer-encoding").is_none(),
            "no transfer-encoding in HTTP/2",
            "there is one"
        );
        Ok(())
    });
    group.add(Correctness, "gRPC over HTTP/2", "grpc-unary", |lane| {
        grpc(lane);
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), false);
        h2.data(1, b"\0\0\0\0\x02hi", true);
        let message = h2.answer(1);
        let request = lane.origins.h2.last();
        want!(message.ok() && message.body == b"\0\0\0\0\x02ok", "200", "{message}");
        want!(message.trailer("grpc-status") == Some("0"), "grpc-status in the trailers", "{:?}", message.trailers);
        want!(request.field("te") == Some("trailers"), "te: trailers at the endpoint", "{:?}", request.field("te"));
        want!(request.body == b"\0\0\0\0\x02hi", "the message at the endpoint", "{} bytes", request.body.len());
        Ok(())
    });
    group.add(Correctness, "gRPC over HTTP/2", "grpc-trailers-only", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            let fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5")];
            h2.headers(stream, &fields, true);
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), false);
        h2.data(1, b"\0\0\0\0\x02hi", true);
        let message = h2.answer(1);
        let status = message.trailer("grpc-status").or(message.field("grpc-status"));
        want!(message.ok() && status == Some("5"), "grpc-status 5", "{message}");
        Ok(())
    });
    group.add(Correctness, "gRPC over HTTP/2", "grpc-both-ways-at-once", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
            for nth in 1..=3 {
                let heard = h2.answer_until(stream, |it| it.body.len() >= nth * 7);
                if heard.body.len() < nth * 7 {
                    return Then::Reset;
                }
                h2.data(stream, b"\0\0\0\0\x02ok", false);
            }
            h2.answer(stream);
            h2.headers(stream, &[("grpc-status", "0")], true);
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), false);
        for nth in 1..=3 {
            h2.data(1, b"\0\0\0\0\x02hi", false);
            let heard = h2.answer_until(1, |it| it.body.len() >= nth * 7);
            want!(heard.body.len() == nth * 7, format!("answer {nth} before the next is asked"), "{heard}");
        }
        h2.data(1, "", true);
        let message = h2.answer(1);
        want!(message.ok() && message.trailer("grpc-status") == Some("0"), "grpc-status 0", "{message}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.1.1", "endpoint-resets-in-mid-body", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.headers(stream, &[(":status", "200"), ("content-type", "application/grpc")], false);
            h2.data(stream, "half", false);
            h2.frame(crate::h2::RST_STREAM, 0, stream, 2u32.to_be_bytes());
            Then::Keep
        });
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/grpc/x.Y/Z", CALL), true);
        let message = h2.answer(1);
        let told = message.reset.is_some() || message.trailer("grpc-status").is_some_and(|it| it != "0");
        want!(
            told || message.status() >= 500 || message.field("grpc-status").is_some(),
            "a reset, or an error",
            "{message}"
        );
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(!response.ok(), "a response that visibly breaks off for 1.1 too", "{response}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.1.1", "endpoint-goes-away-in-mid-body", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.headers(stream, &[(":status", "200"), ("content-length", "100")], false);
            h2.data(stream, "half", false);
            std::thread::sleep(Duration::from_millis(50));
            Then::Reset
        });
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(!response.ok(), "a response that visibly breaks off", "{response}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.1.1", "endpoint-says-less-than-its-length", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            h2.headers(stream, &[(":status", "200"), ("content-length", "100")], false);
            h2.data(stream, "half", true);
            Then::Keep
        });
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(!response.ok(), "a response that visibly breaks off", "{response}");
        Ok(())
    });
    group.add(Correctness, "RFC 9113 6.8", "endpoint-goaway-between-requests", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            crate::h2origin::usual(h2, stream);
            h2.frame(crate::h2::GOAWAY, 0, 0, [stream.to_be_bytes(), [0; 4]].concat());
            Then::Keep
        });
        for _ in 0..4 {
            let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
            want!(response.ok(), "200 each time", "{response}");
        }
        want!(lane.origins.h2.connections() >= 2, "new connections after GOAWAY", "{}", lane.origins.h2.connections());
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.2.1", "endpoint-sends-line-ends-in-a-value", |lane| {
        lane.origins.h2.answers(|h2, stream| {
            h2.answer(stream);
            h2.headers(stream, &[(":status", "200"), ("x", "a\r\nset-cookie: b=c\r\nx-y: z")], true);
            Then::Keep
        });
        let response = crate::client::ask(lane.plain(), "GET /h2c HTTP/1.1\r\nHost: a.test\r\n\r\n")?;
        want!(
            !response.has("set-cookie") && !response.has("x-y"),
            "no field from within a value",
            "{:?}",
            response.fields
        );
        Ok(())
    });
}

pub(super) fn fill(group: &mut Group) {
    requests(group);
    interim(group);
    flow(group);
    trailers(group);
    ends(group);
    extended_connect(group);
    let before = group.cases.len();
    endpoints(group);
    for case in &mut group.cases[before..] {
        case.needs = Some(Need::H2Endpoint);
    }
}
