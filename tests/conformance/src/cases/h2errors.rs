//! HTTP/2 that is not as it should be: faulty frames and streams, and requests that must not reach an HTTP/1.1 endpoint.

use std::time::{Duration, Instant};

use crate::case::{Group, Outcome, Severity, Severity::*, want};
use crate::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, H2, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, settings_payload,
};
use crate::h2client::{head, head_with, open, raw};
use crate::hpack::encode;
use crate::lane::Lane;

/// How a gateway may take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The connection ends, with GOAWAY or without.
    Connection,
    /// That, or the stream is refused.
    Stream,
    /// Nothing happens: the next request is answered.
    None,
}

fn connection_ended(h2: &mut H2) -> Outcome {
    let until = Instant::now() + Duration::from_millis(2500);
    let began = Instant::now();
    loop {
        if h2.goaway.is_some_and(|(_, code)| code != 0) {
            return Ok(());
        }
        match h2.step(until) {
            Ok(_) => {}
            // An end after the idle time is no answer to a fault.
            Err(crate::stream::Broken::Ended(_)) if began.elapsed() < Duration::from_millis(1700) => return Ok(()),
            Err(other) => {
                let goaway = h2.goaway;
                want!(false, "GOAWAY with an error, or the end", "{other:?} after {:?}, {goaway:?}", began.elapsed());
            }
        }
    }
}

/// Sends the bytes on a connection that is ready, where stream 1 is for the fault.
fn judge(lane: &Lane, bytes: &[u8], fault: Fault) -> Outcome {
    let mut h2 = open(lane)?;
    h2.reader.send(bytes);
    match fault {
        Fault::Connection => connection_ended(&mut h2),
        Fault::Stream => {
            h2.patience = Duration::from_millis(2500);
            let message = h2.answer(1);
            want!(message.refused() || message.reset.is_some_and(|it| it != 0), "refused", "{message}");
            Ok(())
        }
        Fault::None => {
            h2.headers(9, &head("GET", "/c"), true);
            let message = h2.answer(9);
            want!(message.ok(), "200 to the next request", "{message}");
            Ok(())
        }
    }
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, encode(&head("GET", "/c")))
}

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, encode(&head("POST", "/c")))
}

fn frames(group: &mut Group) {
    let table: Vec<(&str, &'static str, Vec<u8>, Fault)> = vec![
        ("unknown-frame", "RFC 9113 4.1", frame(0x40, 0xff, 0, "what is this"), Fault::None),
        (
            "unknown-frame-on-a-stream",
            "RFC 9113 4.1",
            [post(1), frame(0x40, 0, 1, "x"), frame(DATA, END_STREAM, 1, "")].concat(),
            Fault::None,
        ),
        ("unknown-flags", "RFC 9113 4.1", frame(PING, 0xfe, 0, [0; 8]), Fault::None),
        ("reserved-bit", "RFC 9113 4.1", frame(PING, 0, 0x8000_0000, [0; 8]), Fault::None),
        ("unknown-setting", "RFC 9113 6.5.2", frame(SETTINGS, 0, 0, settings_payload(&[(0xff00, 7)])), Fault::None),
        ("priority-of-an-idle-stream", "RFC 9113 6.3", frame(PRIORITY, 0, 7, [0, 0, 0, 0, 16]), Fault::None),
        ("ping", "RFC 9113 6.7", frame(PING, 0, 0, [7; 8]), Fault::None),
        (
            "window-update-after-the-end",
            "RFC 9113 5.1",
            [get(1), frame(WINDOW_UPDATE, 0, 1, 9u32.to_be_bytes())].concat(),
            Fault::None,
        ),
        (
            "reset-twice",
            "RFC 9113 5.1",
            [post(1), frame(RST_STREAM, 0, 1, [0, 0, 0, 8]), frame(RST_STREAM, 0, 1, [0, 0, 0, 8])].concat(),
            Fault::None,
        ),
        ("data-frame-too-large", "RFC 9113 4.2", [post(1), frame(DATA, 0, 1, vec![0; 16_385])].concat(), Fault::Stream),
        (
            "headers-frame-too-large",
            "RFC 9113 4.2",
            frame(HEADERS, END_HEADERS, 1, encode(&head_with("GET", "/c", &[("x", &"y".repeat(16_400))]))),
            Fault::Connection,
        ),
        ("unknown-frame-too-large", "RFC 9113 4.2", frame(0x40, 0, 0, vec![0; 20_000]), Fault::Connection),
        (
            "frame-of-16-megabytes",
            "RFC 9113 4.2",
            frame(DATA, 0, 1, [])[..9].iter().enumerate().map(|(at, it)| if at < 3 { 0xff } else { *it }).collect(),
            Fault::Connection,
        ),
        ("data-on-stream-0", "RFC 9113 6.1", frame(DATA, 0, 0, "x"), Fault::Connection),
        ("data-on-an-idle-stream", "RFC 9113 5.1", frame(DATA, END_STREAM, 1, "x"), Fault::Connection),
        (
            "data-padding-too-long",
            "RFC 9113 6.1",
            [post(1), frame(DATA, PADDED, 1, b"\x09x")].concat(),
            Fault::Connection,
        ),
        ("data-padded-and-empty", "RFC 9113 6.1", [post(1), frame(DATA, PADDED, 1, [])].concat(), Fault::Connection),
        ("headers-on-stream-0", "RFC 9113 6.2", get(0), Fault::Connection),
        ("headers-on-an-even-stream", "RFC 9113 5.1.1", get(2), Fault::Connection),
        (
            "headers-padding-too-long",
            "RFC 9113 6.2",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED,
                1,
                [b"\xff".as_slice(), &encode(&head("GET", "/c"))].concat(),
            ),
            Fault::Connection,
        ),
        ("headers-of-an-earlier-stream", "RFC 9113 5.1.1", [get(5), get(3)].concat(), Fault::Connection),
        (
            "headers-bad-compression",
            "RFC 9113 4.3",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xff, 0xff, 0xff, 0xff]),
            Fault::Connection,
        ),
        ("headers-index-0", "RFC 7541 6.1", frame(HEADERS, END_HEADERS | END_STREAM, 1, [0x80]), Fault::Connection),
        (
            "headers-index-unknown",
            "RFC 7541 2.3.3",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xc6]),
            Fault::Connection,
        ),
        (
            "headers-truncated",
            "RFC 7541 5.2",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\0\x05ab"),
            Fault::Connection,
        ),
        (
            "headers-bad-huffman",
            "RFC 7541 5.2",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\0\x01a\x84\xff\xff\xff\xff"),
            Fault::Connection,
        ),
        (
            "headers-table-too-large",
            "RFC 7541 6.3",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                [&[0x3f, 0xff, 0xff, 0x7f][..], &encode(&head("GET", "/c"))].concat(),
            ),
            Fault::Connection,
        ),
        (
            "table-size-after-a-field",
            "RFC 7541 4.2",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, [&encode(&head("GET", "/c"))[..], &[0x20]].concat()),
            Fault::Connection,
        ),
        ("priority-on-stream-0", "RFC 9113 6.3", frame(PRIORITY, 0, 0, [0, 0, 0, 0, 16]), Fault::Connection),
        ("reset-on-stream-0", "RFC 9113 6.4", frame(RST_STREAM, 0, 0, [0, 0, 0, 8]), Fault::Connection),
        ("reset-of-an-idle-stream", "RFC 9113 6.4", frame(RST_STREAM, 0, 1, [0, 0, 0, 8]), Fault::Connection),
        ("reset-of-3-bytes", "RFC 9113 6.4", [post(1), frame(RST_STREAM, 0, 1, [0, 0, 8])].concat(), Fault::Connection),
        ("settings-on-a-stream", "RFC 9113 6.5", frame(SETTINGS, 0, 1, []), Fault::Connection),
        ("settings-of-5-bytes", "RFC 9113 6.5", frame(SETTINGS, 0, 0, [0; 5]), Fault::Connection),
        ("settings-acknowledgement-with-payload", "RFC 9113 6.5", frame(SETTINGS, ACK, 0, [0; 6]), Fault::Connection),
        ("settings-push-2", "RFC 9113 6.5.2", frame(SETTINGS, 0, 0, settings_payload(&[(2, 2)])), Fault::Connection),
        (
            "settings-window-too-large",
            "RFC 9113 6.5.2",
            frame(SETTINGS, 0, 0, settings_payload(&[(4, 0x8000_0000)])),
            Fault::Connection,
        ),
        (
            "settings-frame-size-too-small",
            "RFC 9113 6.5.2",
            frame(SETTINGS, 0, 0, settings_payload(&[(5, 16_383)])),
            Fault::Connection,
        ),
        (
            "settings-frame-size-too-large",
            "RFC 9113 6.5.2",
            frame(SETTINGS, 0, 0, settings_payload(&[(5, 16_777_216)])),
            Fault::Connection,
        ),
        (
            "push-promise-of-a-client",
            "RFC 9113 8.4",
            [post(1), frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &encode(&head("GET", "/c"))].concat())]
                .concat(),
            Fault::Connection,
        ),
        ("ping-on-a-stream", "RFC 9113 6.7", frame(PING, 0, 1, [0; 8]), Fault::Connection),
        ("ping-of-7-bytes", "RFC 9113 6.7", frame(PING, 0, 0, [0; 7]), Fault::Connection),
        ("goaway-on-a-stream", "RFC 9113 6.8", frame(GOAWAY, 0, 1, [0; 8]), Fault::Connection),
        ("window-update-of-0", "RFC 9113 6.9", frame(WINDOW_UPDATE, 0, 0, [0; 4]), Fault::Connection),
        (
            "window-update-of-0-on-a-stream",
            "RFC 9113 6.9",
            [post(1), frame(WINDOW_UPDATE, 0, 1, [0; 4])].concat(),
            Fault::Stream,
        ),
        ("window-update-of-3-bytes", "RFC 9113 6.9", frame(WINDOW_UPDATE, 0, 0, [0; 3]), Fault::Connection),
        (
            "window-update-of-an-idle-stream",
            "RFC 9113 5.1",
            frame(WINDOW_UPDATE, 0, 1, [0, 0, 0, 1]),
            Fault::Connection,
        ),
        (
            "window-overflow",
            "RFC 9113 6.9.1",
            [
                frame(WINDOW_UPDATE, 0, 0, 0x7fff_ffffu32.to_be_bytes()),
                frame(WINDOW_UPDATE, 0, 0, 0x7fff_ffffu32.to_be_bytes()),
            ]
            .concat(),
            Fault::Connection,
        ),
        (
            "window-overflow-of-a-stream",
            "RFC 9113 6.9.1",
            [post(1), frame(WINDOW_UPDATE, 0, 1, 0x7fff_ffffu32.to_be_bytes())].concat(),
            Fault::Stream,
        ),
        ("continuation-alone", "RFC 9113 6.10", frame(CONTINUATION, END_HEADERS, 1, []), Fault::Connection),
        (
            "continuation-after-the-end",
            "RFC 9113 6.10",
            [post(1), frame(CONTINUATION, END_HEADERS, 1, encode(&[("x", "y")]))].concat(),
            Fault::Connection,
        ),
        (
            "continuation-of-another-stream",
            "RFC 9113 6.10",
            [frame(HEADERS, END_STREAM, 1, encode(&head("GET", "/c"))), frame(CONTINUATION, END_HEADERS, 3, [])]
                .concat(),
            Fault::Connection,
        ),
        (
            "ping-within-a-head",
            "RFC 9113 6.10",
            [frame(HEADERS, END_STREAM, 1, encode(&head("GET", "/c"))), frame(PING, 0, 0, [0; 8])].concat(),
            Fault::Connection,
        ),
        (
            "data-within-a-head",
            "RFC 9113 6.10",
            [frame(HEADERS, 0, 1, encode(&head("GET", "/c"))), frame(DATA, 0, 1, "x")].concat(),
            Fault::Connection,
        ),
        (
            "unknown-frame-within-a-head",
            "RFC 9113 5.5",
            [frame(HEADERS, END_STREAM, 1, encode(&head("GET", "/c"))), frame(0x40, 0, 1, "x")].concat(),
            Fault::Connection,
        ),
        ("data-after-the-end", "RFC 9113 5.1", [get(1), frame(DATA, END_STREAM, 1, "x")].concat(), Fault::Stream),
        ("headers-after-the-end", "RFC 9113 5.1", [get(1), get(1)].concat(), Fault::Stream),
        (
            "data-after-a-reset",
            "RFC 9113 5.1",
            [post(1), frame(RST_STREAM, 0, 1, [0, 0, 0, 8]), frame(DATA, 0, 1, "x")].concat(),
            Fault::Stream,
        ),
        (
            "second-headers-without-end",
            "RFC 9113 8.1",
            [post(1), frame(HEADERS, END_HEADERS, 1, encode(&[("x", "y")]))].concat(),
            Fault::Stream,
        ),
    ];
    for (name, reference, bytes, fault) in table {
        group.add(Correctness, reference, name, move |lane| {
            // Answers take their time, so that a stream is still open when its fault comes.
            lane.main().answers(|it| {
                std::thread::sleep(Duration::from_millis(50));
                it.read_body();
                it.send(crate::origin::answer(200, "ok"));
                crate::origin::Then::Keep
            });
            if matches!(name, "data-after-the-end" | "headers-after-the-end" | "data-after-a-reset") {
                return closed_stream(lane, &bytes);
            }
            judge(lane, &bytes, fault)
        });
    }
    for (name, bytes) in [
        ("preface-wrong", &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..]),
        ("preface-without-settings", &[PREFACE, &frame(PING, 0, 0, [0; 8])].concat()),
    ] {
        let bytes = bytes.to_vec();
        group.add(Correctness, "RFC 9113 3.4", name, move |lane| {
            let mut h2 = raw(lane.h2())?;
            h2.reader.send(&bytes);
            let until = Instant::now() + Duration::from_millis(2500);
            loop {
                match h2.reader.fill(until) {
                    Ok(()) => {}
                    Err(crate::stream::Broken::Ended(_)) => return Ok(()),
                    Err(_) => want!(false, "the end of the connection", "nothing"),
                }
            }
        });
    }
}

/// A frame on a stream that this client had ended already is an error of the stream or the connection.
fn closed_stream(lane: &Lane, bytes: &[u8]) -> Outcome {
    let mut h2 = open(lane)?;
    h2.reader.send(bytes);
    h2.patience = Duration::from_millis(2500);
    let message = h2.answer(1);
    if message.reset.is_some_and(|it| it != 0) || message.lost.is_some() {
        return Ok(());
    }
    // The answer may have come before; then the error stands after it.
    let until = Instant::now() + Duration::from_millis(1000);
    loop {
        if h2.goaway.is_some_and(|(_, code)| code != 0) || h2.message(1).reset.is_some_and(|it| it != 0) {
            return Ok(());
        }
        match h2.step(until) {
            Ok(_) => {}
            Err(crate::stream::Broken::Ended(_)) => return Ok(()),
            Err(_) => want!(false, "an error of the stream or the connection", "{message}"),
        }
    }
}

type Pairs = Vec<(&'static [u8], &'static [u8])>;

/// The usual pseudo-fields with one changed, and fields after them.
fn with(change: (&'static str, &'static [u8]), more: &[(&'static [u8], &'static [u8])]) -> Pairs {
    let usual: [(&str, &[u8]); 4] =
        [(":method", b"GET"), (":scheme", b"http"), (":path", b"/c"), (":authority", b"a.test")];
    let mut fields: Pairs = Vec::new();
    for (name, value) in usual {
        fields.push((name.as_bytes(), if name == change.0 { change.1 } else { value }));
    }
    fields.extend_from_slice(more);
    fields
}

/// Requests that are malformed, or would be something else after the translation to HTTP/1.1.
fn downgrade(group: &mut Group) {
    const REFERENCE: &str = "RFC 9113 8.2.1, 8.3, 10.3";
    let plain = |more: &[(&'static [u8], &'static [u8])]| with(("", b""), more);
    let smuggle: &[u8] = b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test";
    let table: Vec<(&str, Pairs, Severity)> = vec![
        ("crlf-in-value", plain(&[(b"x", b"a\r\nx-forwarded-for: 6.6.6.6")]), Safety),
        ("crlf-crlf-in-value", plain(&[(b"x", smuggle)]), Safety),
        ("lf-in-value", plain(&[(b"x", b"a\nb: c")]), Safety),
        ("cr-in-value", plain(&[(b"x", b"a\rb")]), Safety),
        ("nul-in-value", plain(&[(b"x", b"a\0b")]), Safety),
        ("crlf-in-name", plain(&[(b"x\r\ny: z\r\n", b"a")]), Safety),
        ("lf-in-name", plain(&[(b"x\ny", b"a")]), Safety),
        ("colon-in-name", plain(&[(b"x: y", b"a")]), Safety),
        ("colon-without-space-in-name", plain(&[(b"transfer-encoding:chunked", b"a")]), Safety),
        ("space-in-name", plain(&[(b"x y", b"a")]), Safety),
        ("nul-in-name", plain(&[(b"x\0", b"a")]), Safety),
        ("high-byte-in-name", plain(&[(b"x\xff", b"a")]), Correctness),
        ("empty-name", plain(&[(b"", b"a")]), Correctness),
        ("upper-case-name", plain(&[(b"X-Upper", b"a")]), Correctness),
        ("leading-space-in-value", plain(&[(b"x", b" a")]), Courtesy),
        ("crlf-in-path", with((":path", b"/c HTTP/1.1\r\nHost: a.test\r\n\r\nGET /smuggled"), &[]), Safety),
        ("space-in-path", with((":path", b"/c HTTP/1.1 /d"), &[]), Safety),
        ("lf-in-path", with((":path", b"/c\nx"), &[]), Safety),
        ("nul-in-path", with((":path", b"/c\0"), &[]), Safety),
        ("tab-in-path", with((":path", b"/c\td"), &[]), Safety),
        ("fragment-in-path", with((":path", b"/c#d"), &[]), Courtesy),
        ("relative-path", with((":path", b"c"), &[]), Correctness),
        ("empty-path", with((":path", b""), &[]), Correctness),
        ("absolute-path", with((":path", b"http://b.test/c"), &[]), Courtesy),
        ("crlf-in-method", with((":method", b"GET / HTTP/1.1\r\nX: y\r\n"), &[]), Safety),
        ("space-in-method", with((":method", b"GET /smuggled"), &[]), Safety),
        ("empty-method", with((":method", b""), &[]), Correctness),
        ("bad-method", with((":method", b"GE(T"), &[]), Correctness),
        ("crlf-in-authority", with((":authority", b"a.test\r\nX: y"), &[]), Safety),
        ("space-in-authority", with((":authority", b"a.test b"), &[]), Safety),
        ("userinfo-in-authority", with((":authority", b"user@a.test"), &[]), Correctness),
        ("path-in-authority", with((":authority", b"a.test/admin"), &[]), Safety),
        ("crlf-in-scheme", with((":scheme", b"http\r\nX: y"), &[]), Safety),
        ("bad-scheme", with((":scheme", b"ht tp://x/?"), &[]), Courtesy),
        ("host-differs", plain(&[(b"host", b"b.test")]), Correctness),
        ("host-twice", plain(&[(b"host", b"a.test"), (b"host", b"b.test")]), Safety),
        ("transfer-encoding", plain(&[(b"transfer-encoding", b"chunked")]), Safety),
        ("transfer-encoding-identity", plain(&[(b"transfer-encoding", b"identity")]), Safety),
        ("connection", plain(&[(b"connection", b"close")]), Correctness),
        ("connection-names", plain(&[(b"connection", b"x-forwarded-for")]), Correctness),
        ("keep-alive", plain(&[(b"keep-alive", b"timeout=5")]), Correctness),
        ("proxy-connection", plain(&[(b"proxy-connection", b"close")]), Correctness),
        ("upgrade", plain(&[(b"upgrade", b"h2c")]), Correctness),
        ("te-other-than-trailers", plain(&[(b"te", b"gzip")]), Correctness),
        (
            "method-missing",
            with(("", b""), &[]).into_iter().filter(|(name, _)| *name != b":method").collect(),
            Correctness,
        ),
        ("path-missing", with(("", b""), &[]).into_iter().filter(|(name, _)| *name != b":path").collect(), Correctness),
        (
            "scheme-missing",
            with(("", b""), &[]).into_iter().filter(|(name, _)| *name != b":scheme").collect(),
            Correctness,
        ),
        (
            "authority-missing",
            with(("", b""), &[]).into_iter().filter(|(name, _)| *name != b":authority").collect(),
            Courtesy,
        ),
        ("method-twice", plain(&[]).into_iter().chain([(&b":method"[..], &b"POST"[..])]).collect(), Correctness),
        ("path-twice", [vec![(&b":path"[..], &b"/admin"[..])], plain(&[])].concat(), Correctness),
        ("authority-twice", [vec![(&b":authority"[..], &b"b.test"[..])], plain(&[])].concat(), Correctness),
        ("scheme-twice", [vec![(&b":scheme"[..], &b"https"[..])], plain(&[])].concat(), Correctness),
        ("unknown-pseudo-field", plain(&[(b":unknown", b"a")]), Correctness),
        ("status-in-a-request", plain(&[(b":status", b"200")]), Correctness),
        ("protocol-without-connect", [vec![(&b":protocol"[..], &b"websocket"[..])], plain(&[])].concat(), Correctness),
        ("pseudo-after-regular", [vec![(&b"x"[..], &b"a"[..])], plain(&[])].concat(), Correctness),
    ];
    for (name, fields, severity) in table {
        group.add(severity, REFERENCE, format!("malformed-{name}"), move |lane| {
            let mut h2 = open(lane)?;
            h2.patience = Duration::from_millis(2500);
            h2.headers(1, &fields, true);
            let message = h2.answer(1);
            want!(message.status() != 0 || message.reset.is_some() || message.lost.is_some(), "an answer", "{message}");
            if message.refused() {
                return Ok(());
            }
            passed_clean(lane, name, &message)
        });
    }
    for (name, length, data) in [
        ("too-long", "3", "hello"),
        ("too-short", "9", "hello"),
        ("without-data", "5", ""),
        ("zero", "0", "hello"),
        ("not-a-number", "five", "hello"),
        ("plus", "+5", "hello"),
        ("twice", "5, 6", "hello"),
    ] {
        let severity = if name == "without-data" { Correctness } else { Safety };
        group.add(severity, "RFC 9113 8.1.1", format!("content-length-{name}"), move |lane| {
            let mut h2 = open(lane)?;
            h2.patience = Duration::from_millis(2500);
            h2.headers(1, &head_with("POST", "/c", &[("content-length", length)]), data.is_empty());
            if !data.is_empty() {
                h2.data(1, data, true);
            }
            let message = h2.answer(1);
            want!(message.refused() || message.reset.is_some_and(|it| it != 0), "refused", "{message}");
            let whole = lane.main().requests().iter().any(|it| it.whole && !it.body.is_empty());
            want!(!whole, "no whole request at the endpoint", "one");
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9113 8.1.1", "content-length-lines-differ", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head_with("POST", "/c", &[("content-length", "5"), ("content-length", "3")]), false);
        h2.data(1, "hello", true);
        let message = h2.answer(1);
        want!(message.refused() || message.reset.is_some(), "refused", "{message}");
        Ok(())
    });
    group.add(Safety, "RFC 9113 8.2.1", "trailers-with-line-ends", |lane| {
        let mut h2 = open(lane)?;
        h2.headers(1, &head("POST", "/c"), false);
        h2.data(1, "hi", false);
        h2.headers(1, &[("x", "a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test")], true);
        h2.answer(1);
        Ok(())
    });
    for (name, field) in [
        ("pseudo", (":path", "/admin")),
        ("connection", ("connection", "close")),
        ("transfer-encoding", ("transfer-encoding", "chunked")),
    ] {
        group.add(Correctness, "RFC 9113 8.1", format!("trailers-with-{name}"), move |lane| {
            let mut h2 = open(lane)?;
            h2.headers(1, &head("POST", "/c"), false);
            h2.data(1, "hi", false);
            h2.headers(1, &[field], true);
            let message = h2.answer(1);
            let seen = lane.main().last().trailers;
            want!(
                message.refused() || message.reset.is_some() || seen.is_empty(),
                "refused, or without it",
                "{message}, {seen:?}"
            );
            Ok(())
        });
    }
}

/// Where it was not refused, the endpoint must have got one sound request without what was wrong.
fn passed_clean(lane: &Lane, name: &str, message: &crate::h2::Message) -> Outcome {
    let requests = lane.main().requests();
    want!(
        requests.len() == 1 && lane.origins.admin.count() == 0,
        "refused, or one request",
        "{} and {message}",
        requests.len()
    );
    let request = &requests[0];
    let seen = crate::bytes::show(&request.head);
    let clean = match name {
        "host-differs" => request.list("host") == "a.test",
        "authority-missing" | "leading-space-in-value" => true,
        "absolute-path" => !request.target.contains("http:") || request.list("host") == "b.test",
        "fragment-in-path" => !request.target.contains('#'),
        // With the space encoded it is one target again.
        "bad-scheme" | "space-in-path" | "tab-in-path" => true,
        // RFC 9113 8.2.2: malformed, but without them the request is what it was.
        "connection"
        | "connection-names"
        | "keep-alive"
        | "proxy-connection"
        | "upgrade"
        | "te-other-than-trailers" => {
            let gone = ["keep-alive", "proxy-connection", "upgrade"].iter().all(|it| !request.has(it));
            gone && !request.list("connection").contains("x-forwarded") && request.list("te") != "gzip"
        }
        "transfer-encoding" | "transfer-encoding-identity" => !request.has("transfer-encoding"),
        _ => false,
    };
    want!(clean, "refused", "{message}, and {seen} at the endpoint");
    Ok(())
}

pub(super) fn fill(group: &mut Group) {
    frames(group);
    downgrade(group);
}
