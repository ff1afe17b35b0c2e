//! Chunked bodies: sizes, extensions, line ends and trailers.

use super::raw::{May, SMUGGLED, add, post};
use crate::case::{Group, Severity::*, want};

const FORM: &str = "RFC 9112 7.1";

/// Bodies after `Transfer-Encoding: chunked`.
const BODIES: &[(&str, &[u8], May)] = &[
    ("plain", b"5\r\nhello\r\n0\r\n\r\n", May::Must),
    ("empty", b"0\r\n\r\n", May::Must),
    ("upper-case-size", b"A\r\n0123456789\r\n0\r\n\r\n", May::Must),
    ("lower-case-size", b"a\r\n0123456789\r\n0\r\n\r\n", May::Must),
    ("one-byte-chunks", b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", May::Must),
    ("leading-zeros", b"0005\r\nhello\r\n0\r\n\r\n", May::Must),
    ("last-chunk-000", b"5\r\nhello\r\n000\r\n\r\n", May::Must),
    ("extension", b"5;a=b\r\nhello\r\n0\r\n\r\n", May::Must),
    ("extension-name", b"5;a\r\nhello\r\n0\r\n\r\n", May::Must),
    ("extension-quoted", b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", May::Must),
    ("extension-last", b"5\r\nhello\r\n0;a=b\r\n\r\n", May::Must),
    ("extension-spaces", b"5 ; a = b\r\nhello\r\n0\r\n\r\n", May::Pass),
    ("trailing-space", b"5 \r\nhello\r\n0 \r\n\r\n", May::Pass),
    ("trailing-tab", b"5\t\r\nhello\r\n0\r\n\r\n", May::Pass),
    ("data-like-chunks", b"d\r\n0\r\n\r\n5\r\n0\r\n\r\n\r\n0\r\n\r\n", May::Must),
    ("hex-prefix", b"0x5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("plus", b"+5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("minus", b"-5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("minus-zero", b"-0\r\n\r\n", May::Refuse),
    ("leading-space", b" 5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("leading-tab", b"\t5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("underscore", b"0_5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("no-hex", b"g\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("hex-then-junk", b"5g\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("hex-space-hex", b"5 5\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("comma", b"5,a\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("fraction", b"5.0\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("no-size", b"\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("only-extension", b";a=b\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("high-digit", b"\xb25\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("vertical-tab", b"5\x0b\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("nul-after-size", b"5\0\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("over-64-bits", b"10000000000000005\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("all-64-bits", b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("64-bits-less-8", b"fffffffffffffff8\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("over-63-bits", b"8000000000000005\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("over-128-bits", b"100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("over-32-bits", b"100000005\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("bare-lf-after-size", b"5\nhello\r\n0\r\n\r\n", May::Refuse),
    ("bare-cr-after-size", b"5\rhello\r\n0\r\n\r\n", May::Refuse),
    ("double-cr-after-size", b"5\r\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("bare-lf-in-extension", b"5;\nhello\r\n0\r\n\r\n", May::Refuse),
    ("bare-lf-after-extension", b"5;a=b\nhello\r\n0\r\n\r\n", May::Refuse),
    ("bare-cr-in-extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("lf-in-quoted-extension", b"5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("crlf-in-quoted-extension", b"5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("nul-in-extension", b"5;a=\0\r\nhello\r\n0\r\n\r\n", May::Pass),
    ("no-crlf-after-data", b"5\r\nhello0\r\n\r\n", May::Refuse),
    ("bare-lf-after-data", b"5\r\nhello\n0\r\n\r\n", May::Refuse),
    ("bare-cr-after-data", b"5\r\nhello\r0\r\n\r\n", May::Refuse),
    ("junk-after-data", b"5\r\nhelloXX0\r\n\r\n", May::Refuse),
    ("more-data-than-size", b"5\r\nhello world\r\n0\r\n\r\n", May::Refuse),
    ("less-data-than-size", b"7\r\nhello\r\n0\r\n\r\n", May::Refuse),
    ("bare-lf-after-last", b"5\r\nhello\r\n0\n\r\n", May::Refuse),
    ("bare-lf-twice-after-last", b"5\r\nhello\r\n0\n\n", May::Refuse),
    ("bare-lf-ends", b"5\r\nhello\r\n0\r\n\n", May::Pass),
    ("no-end", b"5\r\nhello\r\n0\r\n", May::Refuse),
    ("bare-cr-ends", b"5\r\nhello\r\n0\r\n\rX", May::Refuse),
];

/// Trailer sections, and the field that the endpoint must not get from them.
const TRAILERS: &[(&str, &[u8], May, &str)] = &[
    ("one", b"X-Sum: 1\r\n", May::Must, ""),
    ("many", b"A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n", May::Must, ""),
    ("content-length", b"Content-Length: 3\r\n", May::Pass, "content-length"),
    ("transfer-encoding", b"Transfer-Encoding: chunked\r\n", May::Pass, "transfer-encoding"),
    ("host", b"Host: evil.test\r\n", May::Pass, "host"),
    ("connection", b"Connection: close\r\n", May::Pass, "connection"),
    ("authorization", b"Authorization: Basic eA==\r\n", May::Pass, "authorization"),
    ("cookie", b"Cookie: a=b\r\n", May::Pass, ""),
    ("x-forwarded-for", b"X-Forwarded-For: 6.6.6.6\r\n", May::Pass, "x-forwarded-for"),
    ("content-encoding", b"Content-Encoding: gzip\r\n", May::Pass, "content-encoding"),
    ("te", b"TE: trailers\r\n", May::Pass, "te"),
    ("bare-lf", b"X-Sum: 1\n", May::Pass, ""),
    ("space-before-colon", b"X-Sum : 1\r\n", May::Refuse, ""),
    ("no-colon", b"X-Sum 1\r\n", May::Refuse, ""),
    ("empty-name", b": 1\r\n", May::Refuse, ""),
    ("leading-space", b" X-Sum: 1\r\n", May::Refuse, ""),
    ("fold", b"X-Sum: 1\r\n 2\r\n", May::Pass, ""),
    ("nul", b"X-Sum: \x001\r\n", May::Pass, ""),
    ("control", b"X-Sum: \x011\r\n", May::Pass, ""),
    ("bare-cr", b"X-Sum: 1\r2\r\n", May::Pass, ""),
    ("control-in-name", b"X-\x01Sum: 1\r\n", May::Refuse, ""),
    ("request-line", b"GET /smuggled HTTP/1.1\r\n", May::Refuse, ""),
];

pub(super) fn fill(group: &mut Group) {
    let chunked = |body: &[u8]| post("Transfer-Encoding: chunked", body);
    for (name, body, may) in BODIES {
        // What ends the data is two bytes that carry nothing; taking one for them, and sending both, misleads nobody.
        let severity = if *name == "bare-lf-after-data" { Correctness } else { Safety };
        group.add(severity, FORM, *name, {
            let (bytes, may) = (chunked(body), *may);
            move |lane| super::raw::judge(lane, &bytes, may)
        });
    }
    for (name, trailers, may, forbidden) in TRAILERS {
        let bytes = chunked(&[b"5\r\nhello\r\n0\r\n", *trailers, b"\r\n"].concat());
        let (may, forbidden) = (*may, *forbidden);
        let tame = may == May::Must || matches!(*name, "authorization" | "content-encoding" | "te" | "cookie");
        let severity = if tame { Correctness } else { Safety };
        group.add(severity, "RFC 9112 7.1.2; RFC 9110 6.5.1", format!("trailer-{name}"), move |lane| {
            super::raw::judge(lane, &bytes, may)?;
            let request = lane.main().last();
            let passed = crate::bytes::values(&request.trailers, forbidden);
            want!(passed.is_empty(), "no such trailer at the endpoint", "{forbidden}: {passed:?}");
            want!(
                !request.head.windows(7).any(|it| it == b"6.6.6.6"),
                "no such field at the endpoint",
                "{}",
                crate::bytes::show(&request.head)
            );
            Ok(())
        });
    }
    for (name, size, severity) in
        [("4k", 4 << 10, Correctness), ("64k", 64 << 10, Correctness), ("2m", 2 << 20, Safety)]
    {
        let extension = [b"5;a=".as_slice(), &vec![b'x'; size], b"\r\nhello\r\n0\r\n\r\n"].concat();
        add(
            group,
            severity,
            "RFC 9112 7.1.1; CVE-2023-39326",
            format!("extension-of-{name}"),
            chunked(&extension),
            May::Pass,
        );
        let zeros = [vec![b'0'; size], b"5\r\nhello\r\n0\r\n\r\n".to_vec()].concat();
        add(group, severity, FORM, format!("zeros-of-{name}"), chunked(&zeros), May::Pass);
        let trailers = [b"0\r\nX: ".as_slice(), &vec![b'x'; size], b"\r\n\r\n"].concat();
        add(group, severity, "RFC 9112 7.1.2", format!("trailer-of-{name}"), chunked(&trailers), May::Pass);
    }
    endless(group, "endless-extension", b"5;a=".to_vec(), vec![b'x'; 16 << 10]);
    endless(group, "endless-size", Vec::new(), vec![b'0'; 16 << 10]);
    endless(group, "endless-trailer", b"0\r\n".to_vec(), b"X: yyyyyyyyyyyyyy\r\n".repeat(900));
    endless(
        group,
        "endless-extensions-on-tiny-chunks",
        Vec::new(),
        [b"1;".as_slice(), &[b'x'; 8000], b"\r\nh\r\n"].concat(),
    );
    for body in ["5\r\nhello\r\nX\r\n", "5\r\nhelloXX\r\n"] {
        // A good request before, on the same connection: it is answered, and nothing after the error is.
        group.add(Safety, "RFC 9112 9.3.2", format!("after-a-good-request-{}", body.len()), move |lane| {
            let mut client = lane.client()?;
            client.send("GET /first HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let first = client.response();
            want!(first.ok(), "200", "{first}");
            client.send([post("Transfer-Encoding: chunked", body).as_slice(), SMUGGLED.as_bytes()].concat());
            let second = client.response();
            want!(second.status == 0 || second.status >= 400, "an error", "{second}");
            want!(client.end().is_some(), "a closed connection", "{second}, and it stays open");
            Ok(())
        });
    }
}

/// Something without end must not be read for ever: 64 MiB of it are never taken.
fn endless(group: &mut Group, name: &str, start: Vec<u8>, piece: Vec<u8>) {
    // Where memory is bounded it costs no more than an endless body does.
    let severity = if name.contains("tiny") { Courtesy } else { Correctness };
    group.add(severity, "RFC 9112 7.1.1; CVE-2023-39326, CVE-2024-23326", name, move |lane| {
        let mut client = lane.client()?;
        client.send(post("Transfer-Encoding: chunked", &start));
        let before = lane.memory();
        let mut sent = 0;
        let began = std::time::Instant::now();
        while sent < 64 << 20 && began.elapsed() < std::time::Duration::from_secs(10) && client.send(&piece) {
            sent += piece.len();
        }
        want!(sent < 64 << 20, "an end to it", "{} MiB taken", sent >> 20);
        let grown = lane.memory().saturating_sub(before) >> 20;
        want!(grown < 16, "bounded memory", "{grown} MiB more");
        Ok(())
    });
}
