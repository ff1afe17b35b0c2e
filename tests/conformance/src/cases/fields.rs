//! Fields that a gateway has to take away, set, or leave alone, in both directions; and `Host`.

use super::raw::{May, add, message};
use crate::bytes::{lists, values};
use crate::case::{Group, Outcome, Severity::*, want};
use crate::client::{Client, Response, ask};
use crate::lane::Lane;
use crate::origin::{Request, Then};

/// Sends a GET with these lines, and shows what came of it.
fn through(lane: &Lane, lines: &str) -> Result<(Response, Request), String> {
    let response = ask(lane.plain(), message("GET /c HTTP/1.1", lines, ""))?;
    Ok((response, lane.main().last()))
}

/// What the client gets of an answer with these lines.
fn back(lane: &Lane, lines: &str) -> Result<Response, String> {
    lane.main().says(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\n\r\nok"), Then::Keep);
    ask(lane.plain(), message("GET /c HTTP/1.1", "X: y", ""))
}

const HOPS: &[(&str, &str, &str)] = &[
    ("keep-alive", "Connection: keep-alive\r\nKeep-Alive: timeout=5", "keep-alive"),
    ("proxy-connection", "Proxy-Connection: keep-alive", "proxy-connection"),
    ("te", "Connection: TE\r\nTE: gzip", "te"),
    ("upgrade-not-asked", "Upgrade: foo/2", "upgrade"),
    ("named", "Connection: X-Named\r\nX-Named: secret", "x-named"),
    ("named-among-others", "Connection: keep-alive, x-named , foo\r\nX-Named: secret", "x-named"),
    ("named-in-second-line", "Connection: keep-alive\r\nConnection: X-Named\r\nX-Named: secret", "x-named"),
    ("named-before", "X-Named: secret\r\nConnection: x-NAMED", "x-named"),
    ("named-with-close", "Connection: close, X-Named\r\nX-Named: secret", "x-named"),
    ("named-twice-there", "Connection: X-Named\r\nX-Named: 1\r\nX-Named: 2", "x-named"),
    (
        "http2-settings",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
        "http2-settings",
    ),
    ("upgrade-h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", "upgrade"),
    ("upgrade-h2c-without-settings", "Connection: Upgrade\r\nUpgrade: h2c", "upgrade"),
    ("upgrade-h2c-hidden", "Connection: Upgrade\r\nUpgrade: websocket, h2c", "upgrade"),
    ("upgrade-tls", "Connection: Upgrade\r\nUpgrade: TLS/1.0", "upgrade"),
];

fn hops(group: &mut Group) {
    for (name, lines, gone) in HOPS {
        let h2c = name.contains("h2c") || name.contains("http2");
        let severity = if h2c { Safety } else { Correctness };
        group.add(severity, "RFC 9110 7.6.1, 7.8", format!("request-{name}"), move |lane| {
            let (response, request) = through(lane, lines)?;
            want!(response.status != 0, "an answer", "{response}");
            let left = values(&request.fields, gone);
            // Other upgrades than to h2c may be offered to the endpoint.
            let harmless =
                *gone == "upgrade" && (!h2c || !left.join(",").contains("h2c")) && *name != "upgrade-not-asked";
            want!(left.is_empty() || harmless, format!("no {gone} at the endpoint"), "{gone}: {left:?}");
            let named = lists(&request.fields, "connection", "x-named")
                || lists(&request.fields, "connection", "http2-settings");
            want!(!named, "no such member of Connection at the endpoint", "{}", request.list("connection"));
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9110 10.1.4", "request-te-trailers", |lane| {
        let (_, request) = through(lane, "Connection: TE\r\nTE: trailers, gzip;q=0.5")?;
        let te = request.list("te");
        want!(te.is_empty() || te.eq_ignore_ascii_case("trailers"), "no TE but trailers", "te: {te}");
        Ok(())
    });
    for (name, lines, gone) in [
        ("keep-alive", "Connection: keep-alive\r\nKeep-Alive: timeout=77, max=77", "timeout=77"),
        ("named", "Connection: X-Named\r\nX-Named: secret", "secret"),
        ("named-in-second-line", "Connection: keep-alive\r\nConnection: x-named\r\nX-Named: secret", "secret"),
        ("named-with-close", "Connection: close, X-Named\r\nX-Named: secret", "secret"),
        ("proxy-connection", "Proxy-Connection: secret", "secret"),
        ("upgrade", "Connection: upgrade\r\nUpgrade: h2c-secret", "secret"),
        ("te", "Connection: te\r\nTE: secret", "secret"),
    ] {
        group.add(Correctness, "RFC 9110 7.6.1", format!("response-{name}"), move |lane| {
            let response = back(lane, lines)?;
            let left: Vec<_> = response.fields.iter().filter(|(_, value)| value.contains(gone)).collect();
            want!(response.ok() && left.is_empty(), "200 without it", "{response} with {left:?}");
            Ok(())
        });
    }
    group
        .add(Correctness, "RFC 9112 9.6", "response-close-is-for-the-gateway", |lane| {
            lane.main().says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", Then::Close);
            let mut client = lane.client()?;
            for nth in 0..3 {
                client.send("GET /c HTTP/1.1\r\nHost: a.test\r\n\r\n");
                let response = client.response();
                want!(response.ok(), "200 each time on one connection", "{response} as number {nth}");
            }
            Ok(())
        })
        .severity(Courtesy);
}

/// What is passed as it was sent.
fn left_alone(group: &mut Group) {
    for (name, line) in [
        ("authorization", "Authorization: Basic eDp5"),
        ("cookie", "Cookie: a=b; c=d"),
        ("range", "Range: bytes=0-1"),
        ("if-none-match", "If-None-Match: \"x\""),
        ("accept-encoding", "Accept-Encoding: gzip, br"),
        ("user-agent", "User-Agent: x/1"),
        ("referer", "Referer: http://x.test/"),
        ("origin", "Origin: http://x.test"),
        ("unknown", "X-Something-Else: a,  b ;c"),
        ("max-forwards", "Max-Forwards: 5"),
        ("cache-control", "Cache-Control: no-cache"),
    ] {
        group.add(Correctness, "RFC 9110 7.6", format!("request-passed-{name}"), move |lane| {
            let (_, request) = through(lane, line)?;
            let (key, value) = line.split_once(": ").unwrap();
            want!(request.list(key) == value, line, "{key}: {}", request.list(key));
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9110 5.3", "request-order-of-equal-names", |lane| {
        let (_, request) = through(lane, "X-A: 1\r\nX-B: 0\r\nX-A: 2\r\nX-A: 3")?;
        let seen = request.list("x-a").replace(' ', "");
        want!(seen == "1,2,3", "X-A: 1, 2, 3 in order", "{seen}");
        Ok(())
    });
    for (name, line) in [
        ("set-cookie-twice", "Set-Cookie: a=1\r\nSet-Cookie: b=2"),
        ("etag", "ETag: \"x\""),
        ("location", "Location: http://x.test/y"),
        ("cache-control", "Cache-Control: max-age=5"),
        ("www-authenticate", "WWW-Authenticate: Basic realm=\"x\""),
        ("vary", "Vary: Accept"),
        ("unknown", "X-Something-Else: a,  b ;c"),
        ("content-type", "Content-Type: text/html; charset=utf-8"),
        ("content-encoding", "Content-Encoding: gzip"),
        ("high-bytes", "X-High: \u{e9}"),
    ] {
        group.add(Correctness, "RFC 9110 7.6", format!("response-passed-{name}"), move |lane| {
            let response = back(lane, line)?;
            for line in line.split("\r\n") {
                let (key, value) = line.split_once(": ").unwrap();
                let seen = values(&response.fields, key);
                want!(seen.contains(&value), line, "{response} with {key}: {seen:?}");
            }
            Ok(())
        });
    }
    group.add(Correctness, "RFC 9110 15.1", "response-unknown-status", |lane| {
        lane.main().says("HTTP/1.1 299 Odd Words\r\nContent-Length: 0\r\n\r\n", Then::Keep);
        let response = ask(lane.plain(), message("GET /c HTTP/1.1", "X: y", ""))?;
        want!(response.status == 299, "299", "{response}");
        Ok(())
    });
    group.add(Correctness, "RFC 9112 4", "response-no-reason", |lane| {
        lane.main().says("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Then::Keep);
        let response = ask(lane.plain(), message("GET /c HTTP/1.1", "X: y", ""))?;
        want!(response.ok(), "200", "{response}");
        Ok(())
    });
    group.add(Correctness, "RFC 9110 7.6.3", "request-via", |lane| {
        let (_, request) = through(lane, "Via: 1.0 before")?;
        let via = request.list("via");
        want!(via.starts_with("1.0 before,"), "the Via that was there, and one more", "via: {via}");
        want!(via.split(',').nth(1).is_some_and(|it| it.trim().starts_with("1.1")), "1.1 in the new one", "via: {via}");
        Ok(())
    });
    group
        .add(Correctness, "RFC 9110 7.6.3", "request-via-of-1.0", |lane| {
            ask(lane.plain(), message("GET /c HTTP/1.0", "X: y", ""))?;
            let via = lane.main().last().list("via");
            want!(via.starts_with("1.0") || via.starts_with("HTTP/1.0"), "the version that was received", "via: {via}");
            Ok(())
        })
        .severity(Courtesy);
}

/// Who the client is: strangers cannot say, those in the list can.
fn forwarded(group: &mut Group) {
    for (name, line, key, lie) in [
        ("x-forwarded-for", "X-Forwarded-For: 6.6.6.6", "x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for-twice", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6", "x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for-loopback", "X-Forwarded-For: 127.0.0.2", "x-forwarded-for", "127.0.0.2"),
        ("x-forwarded-for-odd-case", "x-FORWARDED-for: 6.6.6.6", "x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for-junk", "X-Forwarded-For: <script>", "x-forwarded-for", "<script>"),
        ("x-forwarded-proto", "X-Forwarded-Proto: https", "x-forwarded-proto", "https"),
        ("x-forwarded-host", "X-Forwarded-Host: evil.test", "x-forwarded-host", "evil.test"),
        ("forwarded", "Forwarded: for=6.6.6.6;proto=https;host=evil.test", "forwarded", "6.6.6.6"),
    ] {
        group.add(Safety, "RFC 7239 8.1", format!("forged-{name}"), move |lane| {
            let (response, request) = through(lane, line)?;
            let seen = request.list(key);
            want!(response.status != 0, "an answer", "{response}");
            want!(!seen.contains(lie), "nothing of what a stranger said", "{key}: {seen}");
            Ok(())
        });
    }
    group.add(Correctness, "de facto", "set-x-forwarded-for", |lane| {
        let (_, request) = through(lane, "X: y")?;
        let seen = request.list("x-forwarded-for");
        // Envoy names the machine's own address where the client is local.
        want!(seen.parse::<std::net::IpAddr>().is_ok(), "one address", "x-forwarded-for: {seen}");
        Ok(())
    });
    group.add(Correctness, "de facto", "set-x-forwarded-proto", |lane| {
        let (_, request) = through(lane, "X: y")?;
        let seen = request.list("x-forwarded-proto");
        want!(seen == "http", "http", "x-forwarded-proto: {seen}");
        Ok(())
    });
    group.add(Courtesy, "de facto", "set-x-forwarded-host", |lane| {
        let (_, request) = through(lane, "X: y")?;
        let seen = request.list("x-forwarded-host");
        want!(seen == "a.test", "a.test", "x-forwarded-host: {seen}");
        Ok(())
    });
    group.add(Correctness, "de facto", "trusted-x-forwarded-for-continued", |lane| {
        let seen = from_trusted(lane, "X-Forwarded-For: 6.6.6.6")?.list("x-forwarded-for");
        want!(seen.starts_with("6.6.6.6"), "the client that the trusted peer named, first", "x-forwarded-for: {seen}");
        want!(seen.replace(' ', "") != "6.6.6.6", "the trusted peer after it", "x-forwarded-for: {seen}");
        Ok(())
    });
    for (name, line, key, value) in [
        ("x-forwarded-proto", "X-Forwarded-Proto: https", "x-forwarded-proto", "https"),
        ("x-forwarded-host", "X-Forwarded-Host: x.test", "x-forwarded-host", "x.test"),
        ("forwarded", "Forwarded: for=6.6.6.6", "forwarded", "for=6.6.6.6"),
    ] {
        group.add(Correctness, "RFC 7239", format!("trusted-{name}"), move |lane| {
            let seen = from_trusted(lane, line)?.list(key);
            want!(seen.contains(value), format!("{value} kept"), "{key}: {seen}");
            Ok(())
        });
    }
}

fn from_trusted(lane: &Lane, line: &str) -> Result<Request, String> {
    let mut client = lane.client_from(crate::peer::TRUSTED)?;
    client.send(message("GET /c HTTP/1.1", line, ""));
    client.response();
    Ok(lane.main().last())
}

fn host(group: &mut Group) {
    const REFERENCE: &str = "RFC 9112 3.2; RFC 9110 7.2";
    for (name, lines, may) in [
        ("plain", "Host: a.test", May::Must),
        ("port", "Host: a.test:8080", May::Must),
        ("empty-port", "Host: a.test:", May::Pass),
        ("ipv4", "Host: 10.0.0.1:80", May::Must),
        ("ipv6", "Host: [::1]:8080", May::Must),
        ("upper-case", "Host: A.TEST", May::Must),
        ("unknown", "Host: unknown.example", May::Pass),
        ("trailing-dot", "Host: a.test.", May::Pass),
        ("underscore", "Host: a_b.test", May::Must),
        ("percent", "Host: a%2etest", May::Pass),
        ("empty", "Host:", May::Pass),
        ("missing", "X: y", May::Reject),
        ("twice-same", "Host: a.test\r\nHost: a.test", May::Reject),
        ("twice-differing", "Host: a.test\r\nHost: b.test", May::Reject),
        ("twice-apart", "Host: a.test\r\nX: y\r\nhost: b.test", May::Reject),
        ("twice-second-empty", "Host: a.test\r\nHost:", May::Reject),
        ("three", "Host: a.test\r\nHost: a.test\r\nHost: b.test", May::Reject),
        ("list", "Host: a.test, b.test", May::Reject),
        ("userinfo", "Host: user@a.test", May::Reject),
        ("userinfo-password", "Host: user:pass@a.test", May::Reject),
        ("path", "Host: a.test/admin", May::Reject),
        ("query", "Host: a.test?x", May::Reject),
        ("fragment", "Host: a.test#x", May::Reject),
        ("backslash", "Host: a.test\\b", May::Reject),
        ("space", "Host: a.test b.test", May::Reject),
        ("tab", "Host: a.test\tb.test", May::Reject),
        ("scheme", "Host: http://a.test", May::Reject),
        ("angle-brackets", "Host: <a.test>", May::Reject),
        ("quotes", "Host: \"a.test\"", May::Reject),
        ("control", "Host: a\x01.test", May::Reject),
        ("nul", "Host: a\0.test", May::Reject),
        ("high-byte", "Host: a\u{e9}.test", May::Reject),
        ("port-word", "Host: a.test:http", May::Reject),
        ("port-too-large", "Host: a.test:99999999", May::Pass),
        ("port-negative", "Host: a.test:-1", May::Reject),
        ("port-twice", "Host: a.test:80:80", May::Reject),
        ("ipv6-open", "Host: [::1", May::Reject),
        ("ipv6-junk-after", "Host: [::1]x", May::Reject),
        ("ipv6-bare", "Host: ::1", May::Reject),
        ("ipv6-no-address", "Host: [a.test]", May::Reject),
        ("only-port", "Host: :80", May::Reject),
        ("space-before-colon", "Host : a.test", May::Reject),
        ("folded", "Host: a.test\r\n b.test", May::Reject),
        ("folded-before", "Host:\r\n a.test", May::Pass),
    ] {
        let bytes = format!("GET /c HTTP/1.1\r\n{lines}\r\n\r\n");
        let ambiguous =
            name.starts_with("twice") || matches!(name, "three" | "list" | "userinfo" | "path" | "space" | "folded");
        // Two readers of it may find two hosts.
        let severity = if ambiguous && may != May::Must { Safety } else { Correctness };
        if severity == Safety {
            group.add(Safety, REFERENCE, format!("host-{name}"), move |lane| {
                super::raw::judge(lane, bytes.as_bytes(), may)
            });
        } else {
            add(group, severity, REFERENCE, format!("host-{name}"), bytes, may);
        }
    }
    group.add(Correctness, REFERENCE, "host-missing-in-1.0", |lane| {
        let response = ask(lane.plain(), "GET /c HTTP/1.0\r\n\r\n")?;
        want!(response.status == 200 || response.status == 404, "an answer", "{response}");
        Ok(())
    });
    for (name, target, host, expected) in [
        ("same-host", "http://a.test/c", "a.test", "a.test"),
        ("other-host", "http://b.test/c", "a.test", "b.test"),
        ("other-port", "http://a.test:81/c", "a.test", "a.test"),
        ("upper-case-scheme", "HTTP://a.test/c", "a.test", "a.test"),
        ("no-path", "http://a.test", "a.test", "a.test"),
        ("query-only", "http://a.test?c", "a.test", "a.test"),
    ] {
        group.add(Correctness, "RFC 9112 3.2.2", format!("absolute-form-{name}"), move |lane| {
            let response = ask(lane.plain(), format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))?;
            let request = lane.main().last();
            want!(response.ok(), "200", "{response}");
            let seen = request.list("host");
            let seen = seen.split(':').next().unwrap();
            want!(seen.eq_ignore_ascii_case(expected), format!("{expected} as the host"), "host: {seen}");
            want!(request.target.starts_with('/'), "origin-form", "{} at the endpoint", request.target);
            Ok(())
        });
    }
    for (name, target) in [
        ("userinfo", "http://user@a.test/c"),
        ("empty-host", "http:///c"),
        ("bad-port", "http://a.test:x/c"),
        ("other-scheme", "ftp://a.test/c"),
        ("no-slashes", "http:a.test/c"),
        ("no-scheme", "//a.test/c"),
    ] {
        group.add(Correctness, "RFC 9112 3.2.2; RFC 9110 4.2.4", format!("absolute-form-{name}"), move |lane| {
            let mut client: Client = lane.client()?;
            client.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
            let response = client.response();
            let request = lane.main().last();
            want!(response.status != 0 || response.broken.is_some(), "an answer", "{response}");
            let leaked =
                request.list("host").contains('@') || request.target.contains('@') || request.target.contains("http:");
            want!(
                !leaked,
                "refused, or origin-form at the endpoint",
                "{} with host {}",
                request.target,
                request.list("host")
            );
            Ok(())
        });
    }
}

fn methods(group: &mut Group) {
    fn refused(lane: &Lane, bytes: &str, expected: &str) -> Outcome {
        let response = ask(lane.plain(), bytes)?;
        want!(response.status >= 400 || response.status == 0, expected, "{response}");
        want!(lane.main().count() == 0, "nothing at the endpoint", "{:?}", lane.main().last().target);
        Ok(())
    }
    group.add(Safety, "RFC 9110 9.3.6", "connect", |lane| {
        refused(lane, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", "refused")
    });
    group.add(Safety, "RFC 9110 9.3.6", "connect-loopback", |lane| {
        let target = lane.origins.admin.address;
        refused(lane, &format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"), "refused")?;
        want!(lane.origins.admin.connections() == 0, "no tunnel", "a connection to the guarded endpoint");
        Ok(())
    });
    group.add(Safety, "RFC 9110 9.3.6", "connect-with-path", |lane| {
        refused(lane, "CONNECT /c HTTP/1.1\r\nHost: a.test\r\n\r\n", "refused")
    });
    group
        .add(Correctness, "RFC 9110 9.3.8", "trace", |lane| {
            refused(lane, "TRACE /c HTTP/1.1\r\nHost: a.test\r\nCookie: a=b\r\n\r\n", "refused")
        })
        .severity(Courtesy);
    group.add(Correctness, "RFC 9110 9.3.7", "options-asterisk", |lane| {
        let mut client = lane.client()?;
        client.send("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n");
        let response = client.response();
        want!(response.whole() && response.status < 500, "an answer", "{response}");
        let target = lane.main().last().target;
        want!(matches!(target.as_str(), "" | "*"), "answered, or * at the endpoint", "{target}");
        Ok(())
    });
}

pub(super) fn fill(group: &mut Group) {
    hops(group);
    left_alone(group);
    forwarded(group);
    host(group);
    methods(group);
}
