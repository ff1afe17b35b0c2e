//! What becomes of a path: no spelling of it may bring a request for the guarded `/admin` to the endpoint of `/`.

use super::raw::message;
use crate::case::{Group, Severity::*, want};
use crate::client::ask;

/// Targets that some endpoint would read as `/admin` or below it.
const GUARDED: &[(&str, &str)] = &[
    ("plain", "/admin"),
    ("below", "/admin/x"),
    ("query", "/admin?a=b"),
    ("slash", "/admin/"),
    ("dot-first", "/./admin"),
    ("dot-middle", "/admin/./x"),
    ("dot-last", "/admin/."),
    ("dot-dot", "/x/../admin"),
    ("dot-dot-deep", "/x/y/../../admin"),
    ("dot-dot-above-root", "/../admin"),
    ("dot-dot-far-above-root", "/../../../admin/x"),
    ("dot-dot-back", "/admin/x/.."),
    ("dot-dot-dot-slash", "/x/.././admin"),
    ("dots-and-slashes", "/x/..//admin"),
    ("encoded-dot", "/%2e/admin"),
    ("encoded-dot-upper", "/%2E/admin"),
    ("encoded-dot-dot", "/x/%2e%2e/admin"),
    ("encoded-half-dot-dot", "/x/.%2e/admin"),
    ("encoded-other-half", "/x/%2E./admin"),
    ("double-slash", "//admin"),
    ("triple-slash", "///admin"),
    ("double-slash-within", "/admin//x"),
    ("slash-dot-slash", "/.//admin"),
    ("slashes-and-dot-dot", "//x//..//admin"),
    ("encoded-letter", "/%61dmin"),
    ("encoded-letters", "/%61%64%6d%69%6e"),
    ("encoded-letter-upper-hex", "/adm%69N/../admin"),
    ("double-encoded-letter", "/%2561dmin"),
    ("double-encoded-dots", "/x/%252e%252e/admin"),
    ("double-encoded-slash", "/x/..%252fadmin"),
    ("encoded-slash-first", "/%2fadmin"),
    ("encoded-slash-upper", "/%2Fadmin"),
    ("encoded-slash-after", "/admin%2fx"),
    ("encoded-slash-dot-dot", "/x%2f..%2fadmin"),
    ("encoded-slash-dot-dot-2", "/x/..%2fadmin"),
    ("encoded-backslash", "/%5cadmin"),
    ("encoded-backslash-dot-dot", "/x%5c..%5cadmin"),
    ("encoded-backslash-dot-dot-2", "/x/..%5cadmin"),
    ("backslash", "/\\admin"),
    ("backslash-after", "/admin\\x"),
    ("backslash-dot-dot", "/x\\..\\admin"),
    ("backslash-dot-dot-2", "/x/..\\admin"),
    ("encoded-nul", "/admin%00"),
    ("encoded-nul-below", "/admin%00/x"),
    ("encoded-question-mark", "/admin%3f"),
    ("fragment", "/admin#x"),
    ("fragment-below", "/admin/x#y"),
    ("fragment-dot-dot", "/x/../admin#y"),
    ("question-after-dot-dot", "/x/../admin?/../x"),
    ("absolute-form", "http://a.test/admin"),
    ("absolute-dot-dot", "http://a.test/x/../admin"),
    ("absolute-double-slash", "http://a.test//admin"),
    ("absolute-encoded", "http://a.test/%61dmin"),
    ("absolute-backslash", "http://a.test\\admin"),
    ("over-long-utf-8-slash", "/x/..%c0%afadmin"),
    ("over-long-utf-8-dot", "/x/%c0%ae%c0%ae/admin"),
    ("unicode-escape", "/x/..%u002fadmin"),
];

/// Targets with something invalid: refused, or brought to the endpoint as they are.
const INVALID: &[(&str, &str)] = &[
    ("percent-alone", "/x%"),
    ("percent-one-digit", "/x%4"),
    ("percent-no-hex", "/x%zz"),
    ("percent-half-hex", "/x%4g/y"),
    ("percent-percent", "/x%%41"),
    ("percent-sign", "/x%+1"),
    ("percent-in-query", "/x?a=%zz"),
];

/// Targets that mean what they say: to be brought as they are, up to what RFC 3986 6.2.2 calls the same.
const PLAIN: &[(&str, &str)] = &[
    ("like-the-guarded", "/administrator"),
    ("upper-case", "/ADMIN"),
    ("dot-in-name", "/x.y/..z/...w"),
    ("tilde", "/~x"),
    ("reserved", "/a!$&'()*+,;=:@b"),
    ("encoded-reserved", "/a%21%24b"),
    ("encoded-space", "/a%20b"),
    ("encoded-percent", "/a%25b"),
    ("encoded-utf-8", "/%C3%A9"),
    ("encoded-high-byte", "/%ff"),
    ("query", "/a?b=c&d=e"),
    ("query-empty", "/a?"),
    ("query-dots", "/a?b=../c&d=%2e%2e%2f"),
    ("query-slashes", "/a?//b//c"),
    ("query-question", "/a?b?c"),
    ("query-plus-and-percent", "/a?b+c=%2B%20"),
    ("trailing-slash", "/a/"),
    ("parameters", "/a;b=c/d;e"),
    ("colon", "/a:b"),
];

fn hex(byte: Option<&u8>) -> Option<u8> {
    char::from(*byte?).to_digit(16).map(|it| it as u8)
}

/// A path as a careless endpoint reads it: decoded once, `\` for `/`, cut at NUL and `#`, slashes merged, dots resolved.
fn careless(target: &str) -> String {
    let path = target.strip_prefix("http://a.test").unwrap_or(target);
    let bytes = path.split(['?', '#']).next().unwrap().as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high * 16 + low);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    let text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    let text = text.split('\0').next().unwrap_or_default();
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

fn guarded(target: &str) -> bool {
    let path = careless(target);
    path == "/admin" || path.starts_with("/admin/")
}

/// With escapes of unreserved characters undone and hex in upper case: what may be rewritten without a change of meaning.
fn canonical(target: &str) -> String {
    let (bytes, mut out, mut at) = (target.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                let byte = high * 16 + low;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    out.push(byte);
                } else {
                    out.extend(format!("%{byte:02X}").into_bytes());
                }
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn fill(group: &mut Group) {
    for (name, target) in GUARDED {
        group.add(Safety, "RFC 3986 6.2.2, 7.3", format!("guarded-{name}"), move |lane| {
            let response = ask(lane.plain(), message(&format!("GET {target} HTTP/1.1"), "Connection: close", ""))?;
            want!(response.status != 0 || response.broken.is_some(), "an answer", "{response}");
            for request in lane.main().requests() {
                let seen = format!("{} at the endpoint of /", request.target);
                want!(!guarded(&request.target), "not to the endpoint of / what reads as /admin", "{seen}");
                want!(!request.target.contains('#'), "no fragment in a target", "{seen}");
            }
            for request in lane.origins.admin.requests() {
                let seen = format!("{} at the guarded endpoint", request.target);
                want!(guarded(&request.target), "to /admin only what reads so", "{seen}");
            }
            if matches!(*name, "plain" | "below" | "query" | "slash") {
                want!(response.ok() && lane.origins.admin.count() == 1, "200 from the guarded endpoint", "{response}");
            }
            Ok(())
        });
    }
    for (name, target) in INVALID {
        group.add(Correctness, "RFC 3986 2.1", format!("invalid-{name}"), move |lane| {
            let response = ask(lane.plain(), message(&format!("GET {target} HTTP/1.1"), "Connection: close", ""))?;
            let seen = lane.main().last().target;
            let kept = response.ok() && seen == *target;
            want!(
                kept || (400..500).contains(&response.status),
                "as it is, or refused",
                "{response}, {seen} at the endpoint"
            );
            Ok(())
        });
    }
    for (name, target) in PLAIN {
        group.add(Correctness, "RFC 3986 6.2.2; RFC 9110 4.2", format!("plain-{name}"), move |lane| {
            let response = ask(lane.plain(), message(&format!("GET {target} HTTP/1.1"), "Connection: close", ""))?;
            let seen = lane.main().last().target;
            want!(response.ok(), "200", "{response}");
            want!(canonical(&seen) == canonical(target), *target, "{seen} at the endpoint");
            Ok(())
        });
    }
    group.add(Safety, "RFC 9110 7.4", "method-does-not-change-the-route", |lane| {
        for method in ["GET", "POST", "OPTIONS", "PROPFIND"] {
            let line = format!("{method} /admin HTTP/1.1");
            ask(lane.plain(), message(&line, "Content-Length: 0\r\nConnection: close", ""))?;
        }
        let seen = lane.main().requests();
        want!(seen.is_empty(), "nothing at the endpoint of /", "{} requests", seen.len());
        Ok(())
    });
    for (name, field) in [
        ("x-original-url", "X-Original-URL: /admin"),
        ("x-rewrite-url", "X-Rewrite-URL: /admin"),
        ("x-http-method-override", "X-HTTP-Method-Override: PUT"),
    ] {
        group.add(Correctness, "RFC 9110 7.6", format!("not-obeyed-{name}"), move |lane| {
            let response = ask(lane.plain(), message("GET /c HTTP/1.1", field, ""))?;
            let request = lane.main().last();
            want!(
                response.ok() && request.target == "/c",
                "the target as it was sent",
                "{response}, {}",
                request.target
            );
            want!(request.method == "GET", "the method as it was sent", "{}", request.method);
            Ok(())
        });
    }
}
