//! HTTP/2 requests that are malformed, or would be something else after their translation to HTTP/1.1.

use std::time::Duration;

use crate::case::{Group, Outcome, Severity, Severity::*, want};
use crate::h2client::{head, head_with, open};
use crate::lane::Lane;

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
pub(super) fn fill(group: &mut Group) {
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
