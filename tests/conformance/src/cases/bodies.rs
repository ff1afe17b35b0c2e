//! Bodies in both directions: whole, as they come, and with early and late ends.

use std::time::{Duration, Instant};

use super::raw::message;
use crate::bytes::{chunked, find, values};
use crate::case::{Group, Severity::*, want};
use crate::client::{Framing, ask};
use crate::lane::Lane;
use crate::origin::{Gate, Then, answer};
use crate::stream::reset;

const GET: &str = "GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n";
const GET_1_0: &str = "GET /c HTTP/1.0\r\nHost: a.test\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

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

pub(super) fn fill(group: &mut Group) {
    bodies(group);
    streaming(group);
    early(group);
    leaving(group);
    pressure(group);
}
