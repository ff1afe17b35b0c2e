//! Endpoints that answer with something odd: the client gets it sound or not at all, and the next answer is its own.

use std::time::{Duration, Instant};

use super::raw::message;
use crate::case::{Group, Outcome, Severity, Severity::*, want};
use crate::client::{Client, Framing, Response, ask};
use crate::lane::Lane;
use crate::lint;
use crate::origin::{Then, answer};

const GET: &str = "GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// What the client may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// An error, or a response that visibly breaks off.
    Error,
    /// That, or a sound response.
    Sound,
}

const ANSWERS: &[(&str, &[u8], Gets)] = &[
    ("two-status-lines", b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("no-status-line", b"hello\r\n\r\n", Gets::Error),
    ("only-fields", b"Content-Length: 2\r\n\r\nok", Gets::Error),
    ("status-word", b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-99", b"HTTP/1.1 99 X\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-0", b"HTTP/1.1 000 X\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-20", b"HTTP/1.1 20 X\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-2000", b"HTTP/1.1 2000 X\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-minus", b"HTTP/1.1 -200 X\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-hex", b"HTTP/1.1 0xC8 X\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("status-600", b"HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("status-999", b"HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("no-status", b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("version-2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("version-0.9", b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("lower-case-version", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("other-protocol", b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("nul-in-reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("cr-in-reason", b"HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("length-word", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", Gets::Error),
    ("length-negative", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", Gets::Error),
    ("length-plus", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Gets::Error),
    ("length-hex", b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", Gets::Error),
    ("length-blank", b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", Gets::Error),
    ("length-two-words", b"HTTP/1.1 200 OK\r\nContent-Length: 2 2\r\n\r\nok", Gets::Error),
    ("length-over-64-bits", b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok", Gets::Error),
    ("length-differs", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", Gets::Error),
    ("length-differs-down", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 2\r\n\r\nok", Gets::Error),
    ("length-list-differs", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", Gets::Error),
    ("length-list-same", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Gets::Sound),
    ("length-twice-same", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    (
        "length-and-chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Gets::Sound,
    ),
    (
        "chunked-and-length",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Gets::Sound,
    ),
    (
        "chunked-twice",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Gets::Sound,
    ),
    (
        "chunked-two-lines",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Gets::Sound,
    ),
    (
        "chunked-then-identity",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Gets::Sound,
    ),
    ("xchunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Gets::Sound),
    (
        "chunked-vertical-tab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Gets::Sound,
    ),
    ("chunked-in-1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Gets::Sound),
    ("chunk-size-junk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n", Gets::Error),
    ("chunk-size-negative", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", Gets::Error),
    (
        "chunk-size-hex-prefix",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n",
        Gets::Error,
    ),
    (
        "chunk-size-over-64-bits",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n",
        Gets::Error,
    ),
    ("chunk-without-end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokok\r\n0\r\n\r\n", Gets::Error),
    ("chunk-bare-lf", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", Gets::Sound),
    (
        "chunk-trailer-junk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nno colon\r\n\r\n",
        Gets::Sound,
    ),
    ("fold", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("fold-first", b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("fold-hides-length", b"HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 5\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("nul-in-value", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("nul-in-name", b"HTTP/1.1 200 OK\r\nX\0Y: a\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("bare-cr-in-value", b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("bare-lf-lines", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Gets::Sound),
    ("bare-lf-one-line", b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("space-before-colon", b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("space-before-length-colon", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Gets::Sound),
    ("no-colon", b"HTTP/1.1 200 OK\r\nX a\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("empty-name", b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("control-in-value", b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("high-byte-in-name", b"HTTP/1.1 200 OK\r\nX\xff: a\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    ("empty-line-first", b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Gets::Sound),
    (
        "switching-unasked",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nok",
        Gets::Error,
    ),
    ("switching-without-upgrade", b"HTTP/1.1 101 Switching Protocols\r\n\r\nok", Gets::Error),
    ("continue-then-nothing", b"HTTP/1.1 100 Continue\r\n\r\n", Gets::Error),
    ("hints-then-nothing", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", Gets::Error),
    ("hints-then-junk", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\njunk\r\n\r\n", Gets::Error),
    ("nothing", b"", Gets::Error),
    ("half-a-head", b"HTTP/1.1 200 OK\r\nContent-Le", Gets::Error),
    ("tls-alert", b"\x15\x03\x01\x00\x02\x02\x46", Gets::Error),
    ("http2-preface", b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff", Gets::Error),
];

/// The next answer on the same connection is its own.
fn next_is_sound(lane: &Lane, client: &mut Client, first: &Response) -> Outcome {
    lane.main().answers(|it| {
        it.read_body();
        it.send(answer(200, "mine"));
        Then::Keep
    });
    let mut second = Response { status: 0, ..first.clone() };
    if first.broken.is_none() && first.keeps() && first.framing != Framing::Close && client.send(GET) {
        second = client.response();
    }
    if second.status == 0 {
        second = ask(lane.plain(), GET)?;
    }
    want!(
        second.ok() && second.body == b"mine",
        "the next answer to the next request",
        "{second} with {:?}",
        second.body
    );
    Ok(())
}

fn judge(lane: &Lane, bytes: &'static [u8], gets: Gets) -> Outcome {
    lane.main().says(bytes, Then::Close);
    let mut client = lane.client()?;
    client.send(GET);
    let response = client.response();
    if response.whole() && response.status < 500 {
        want!(gets == Gets::Sound, "an error", "{response}");
    }
    for one in response.interim.iter().chain([&response]).filter(|it| it.status != 0) {
        want!(one.status != 101, "no upgrade that nobody asked for", "{one}");
        let complaints = lint::response_complaints(&one.head);
        want!(complaints.is_empty(), "a sound head", "{}", complaints.join(", "));
    }
    next_is_sound(lane, &mut client, &response)
}

/// After this answer the endpoint keeps the connection, and what is left on it belongs to nobody.
fn leftover(group: &mut Group, name: &str, method: &'static str, bytes: &'static str) {
    group.add(Safety, "RFC 9112 6.3, 9.2", format!("leftover-{name}"), move |lane| {
        lane.main().says(bytes, Then::Keep);
        let mut client = lane.client()?;
        client.send(format!("{method} /c HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        let first = client.response_to(method);
        want!(first.status != 0, "an answer", "{first}");
        let text = String::from_utf8_lossy(&first.body).into_owned();
        want!(!text.contains("poison"), "no more than the answer's length", "{first}: {text}");
        // Other clients come along the same pooled connection.
        next_is_sound(lane, &mut client, &first)?;
        next_is_sound(lane, &mut lane.client()?, &first)
    });
}

fn leftovers(group: &mut Group) {
    leftover(
        group,
        "after-length",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(group, "bytes-after-length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokpoison");
    leftover(
        group,
        "after-chunked",
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(
        group,
        "after-zero-length",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(
        group,
        "after-204",
        "GET",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(group, "body-of-204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison");
    leftover(
        group,
        "chunked-204",
        "GET",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    );
    leftover(group, "body-of-304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison");
    leftover(
        group,
        "after-304",
        "GET",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(group, "body-of-head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    leftover(
        group,
        "after-head",
        "HEAD",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(
        group,
        "chunked-head",
        "HEAD",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    );
    leftover(
        group,
        "after-hints",
        "GET",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    );
    leftover(
        group,
        "length-and-chunked",
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\npoison",
    );
}

/// An endpoint that talks without end, or says too much before it says anything.
fn too_much(group: &mut Group) {
    for (name, start, piece) in [
        ("fields", "HTTP/1.1 200 OK\r\n", "X-More: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(300)),
        ("one-field", "HTTP/1.1 200 OK\r\nX: ", "y".repeat(16 << 10)),
        ("status-line", "HTTP/1.1 200 ", "O".repeat(16 << 10)),
        ("hints", "", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(300)),
        ("empty-lines", "", "\r\n".repeat(8 << 10)),
    ] {
        group.add(Safety, "RFC 9110 5.4; RFC 9112 2.3", format!("endless-{name}"), move |lane| {
            let piece = piece.clone();
            lane.main().answers(move |it| {
                it.send(start);
                let until = Instant::now() + Duration::from_secs(6);
                let mut sent = 0;
                while Instant::now() < until && sent < 256 << 20 && it.send(&piece) {
                    sent += piece.len();
                }
                Then::Reset
            });
            let before = lane.memory();
            let mut client = lane.client()?;
            client.patience = Duration::from_secs(5);
            client.send(GET);
            let response = client.response();
            want!(
                response.status != 0 || response.broken != Some(crate::stream::Broken::TooLate),
                "an end to it",
                "{response}"
            );
            want!(!response.ok(), "an error", "{response}");
            let grown = lane.memory().saturating_sub(before) >> 20;
            want!(grown < 32, "bounded memory", "{grown} MiB more");
            Ok(())
        });
    }
    for (name, size, severity) in [("4k", 4 << 10, Correctness), ("1m", 1 << 20, Courtesy)] {
        group.add(severity, "RFC 9110 5.4", format!("head-of-{name}"), move |lane| {
            let field = "y".repeat(size);
            lane.main().says(format!("HTTP/1.1 200 OK\r\nX: {field}\r\nContent-Length: 2\r\n\r\nok"), Then::Keep);
            let response = ask(lane.plain(), GET)?;
            let expected = if size > 64 << 10 { "502, or all of it" } else { "200" };
            want!(response.ok() || (size > 64 << 10 && response.status == 502), expected, "{response}");
            Ok(())
        });
    }
}

/// What breaks off must be seen to break off: never less than there was, as if it were all.
fn broken_off(group: &mut Group) {
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    const IN_CHUNK: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf";
    const NO_LAST: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n";
    const CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nhalf";
    for (name, bytes, then) in [
        ("length-fin", LENGTH, Then::Close),
        ("length-reset", LENGTH, Then::Reset),
        ("between-chunks-fin", CHUNKED, Then::Close),
        ("between-chunks-reset", CHUNKED, Then::Reset),
        ("in-chunk-fin", IN_CHUNK, Then::Close),
        ("in-chunk-reset", IN_CHUNK, Then::Reset),
        ("in-trailers-fin", NO_LAST, Then::Close),
        ("unframed-reset", CLOSE, Then::Reset),
    ] {
        for version in ["1.1", "1.0"] {
            // To a 1.0 client without a length there is nothing but the reset to tell it.
            group.add(Safety, "RFC 9112 8", format!("broken-off-{name}-to-{version}"), move |lane| {
                lane.main().answers(move |it| {
                    it.send(bytes);
                    // The client has the start before the end comes.
                    std::thread::sleep(Duration::from_millis(100));
                    then
                });
                let response = ask(lane.plain(), format!("GET /c HTTP/{version}\r\nHost: a.test\r\n\r\n"))?;
                let told = response.status >= 500 || response.broken.is_some();
                want!(told, "a response that visibly breaks off", "{response}");
                Ok(())
            });
        }
    }
    for (name, then) in [("fin", Then::Close), ("reset", Then::Reset)] {
        group.add(Correctness, "RFC 9110 15.6.3", format!("no-answer-{name}"), move |lane| {
            lane.main().answers(move |it| {
                it.read_body();
                then
            });
            let response = ask(lane.plain(), message("POST /c HTTP/1.1", "Content-Length: 2", "hi"))?;
            want!(matches!(response.status, 502 | 503), "502", "{response}");
            want!(lane.main().count() == 1, "one try of a POST", "{}", lane.main().count());
            Ok(())
        });
    }
}

pub(super) fn fill(group: &mut Group) {
    for (name, bytes, gets) in ANSWERS {
        // RFC 9112 6.3 wants a 502 for a length that is none; what is made sound instead misleads nobody.
        let severity: Severity = if *gets == Gets::Error && !name.contains("differs") { Correctness } else { Safety };
        group.add(severity, "RFC 9112 2, 4, 5, 6", *name, move |lane| judge(lane, bytes, *gets));
    }
    leftovers(group);
    too_much(group);
    broken_off(group);
}
