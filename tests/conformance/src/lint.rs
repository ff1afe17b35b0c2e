//! What no gateway may send to an endpoint, whatever its client sent: checked on every byte of every case.

use crate::bytes::{Fields, fields, find, show, values};

/// The word that a case puts into what must never run as a request of its own.
pub(crate) const FORBIDDEN: &str = "smuggled";

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What is wrong with the requests on one connection, read as RFC 9112 says. What comes after something that cannot be
/// read is not looked at.
pub(crate) fn complaints(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let Some(length) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
            if find(bytes, b"\n\n").is_some() {
                found.push(format!("a head ended by bare line feeds: {}", show(bytes)));
            }
            return found;
        };
        let head = &bytes[..length];
        head_complaints(head, &mut found);
        match body_length(head, &bytes[length..], &mut found) {
            Some(body) => bytes = &bytes[length + body..],
            None => return found,
        }
    }
    found
}

fn head_complaints(head: &[u8], found: &mut Vec<String>) {
    let mut complain = |what: &str, where_: &[u8]| found.push(format!("{what}: {}", show(where_)));
    let lines: Vec<&[u8]> = head[..head.len() - 4].split(|byte| *byte == b'\n').collect();
    for (nth, line) in lines.iter().enumerate() {
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if nth + 1 == lines.len() => line,
            None => {
                complain("a bare LF", line);
                line
            }
        };
        // In a value other control characters may be kept (RFC 9110 5.5).
        let unsafe_ = |byte: &u8| if nth == 0 { *byte < 0x20 || *byte == 0x7f } else { matches!(byte, 0 | b'\r') };
        if line.iter().any(unsafe_) {
            complain("a control character", line);
        }
        if nth == 0 {
            request_line(line, &mut complain);
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            complain("a line without colon", line);
            continue;
        };
        if colon == 0 || !line[..colon].iter().all(|byte| token(*byte)) {
            complain("a name that is no token", line);
        }
    }
    let fields = fields(head);
    let version_1_0 = lines[0].ends_with(b"HTTP/1.0\r") || lines[0].ends_with(b"HTTP/1.0");
    framing(&fields, version_1_0, head, &mut complain);
}

/// What is wrong with the head of a response, so that two clients may read it differently.
pub(crate) fn response_complaints(head: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let Some(body) = head.strip_suffix(b"\r\n\r\n") else {
        return vec![format!("a bare LF at the end: {}", show(head))];
    };
    for line in body.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        if colon == 0 || !line[..colon].iter().all(|byte| token(*byte)) || line.iter().any(|it| matches!(it, 0 | b'\r'))
        {
            found.push(format!("a bad field: {}", show(line)));
        }
    }
    if find(body, b"\r\n").is_some()
        && body.iter().filter(|it| **it == b'\n').count() != body.windows(2).filter(|it| it == b"\r\n").count()
    {
        found.push(format!("a bare LF: {}", show(head)));
    }
    let fields = fields(head);
    let (lengths, codings) = (values(&fields, "content-length"), values(&fields, "transfer-encoding"));
    let odd = |it: &&str| it.is_empty() || !it.bytes().all(|byte| byte.is_ascii_digit());
    if lengths.len() > 1 || lengths.iter().any(odd) || (!lengths.is_empty() && !codings.is_empty()) || codings.len() > 1
    {
        found.push(format!("ambiguous length: {}", show(head)));
    }
    found
}

fn request_line(line: &[u8], complain: &mut impl FnMut(&str, &[u8])) {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return complain("a request line without three parts", line) };
    if method.is_empty() || !method.iter().all(|byte| token(*byte)) {
        complain("a method that is no token", line);
    }
    if target.is_empty() || target.contains(&b'\t') {
        complain("a bad target", line);
    }
    if String::from_utf8_lossy(target).contains(FORBIDDEN) {
        complain("a smuggled request", line);
    }
    if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        complain("a bad version", line);
    }
}

fn framing(fields: &Fields, version_1_0: bool, head: &[u8], complain: &mut impl FnMut(&str, &[u8])) {
    let lengths = values(fields, "content-length");
    let codings = values(fields, "transfer-encoding");
    if lengths.len() > 1 || lengths.iter().any(|it| it.is_empty() || !it.bytes().all(|byte| byte.is_ascii_digit())) {
        complain("not one plain content-length", head);
    }
    if codings.len() > 1 || codings.iter().any(|it| !sound_coding(it)) {
        complain("a transfer-encoding other than chunked", head);
    }
    if !lengths.is_empty() && !codings.is_empty() {
        complain("content-length and transfer-encoding", head);
    }
    if version_1_0 && !codings.is_empty() {
        complain("transfer-encoding in HTTP/1.0", head);
    }
    if values(fields, "host").len() != 1 && !version_1_0 {
        complain("not one host", head);
    }
    for (name, _) in fields {
        if matches!(name.to_ascii_lowercase().replace('_', "-").as_str(), "transfer-encoding" | "content-length")
            && name.contains('_')
        {
            complain("a look-alike of a framing field", head);
        }
    }
}

/// Chunked, once and last, after nothing but codings that everybody knows.
fn sound_coding(value: &str) -> bool {
    let mut members = value.rsplit(',').map(|it| it.trim().to_ascii_lowercase());
    members.next().is_some_and(|it| it == "chunked")
        && members.all(|it| matches!(it.as_str(), "gzip" | "compress" | "deflate"))
}

/// How many of `rest` belong to the request; `None` if it does not end in them.
fn body_length(head: &[u8], rest: &[u8], found: &mut Vec<String>) -> Option<usize> {
    let fields = fields(head);
    if !values(&fields, "transfer-encoding").is_empty() {
        return chunks(rest, found);
    }
    let length: usize = values(&fields, "content-length").first().and_then(|it| it.parse().ok()).unwrap_or(0);
    (length <= rest.len()).then_some(length)
}

fn chunks(bytes: &[u8], found: &mut Vec<String>) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = at + find(&bytes[at..], b"\n")?;
        let line = &bytes[at..end];
        let Some(line) = line.strip_suffix(b"\r").filter(|it| !it.contains(&b'\r')) else {
            found.push(format!("a chunk size line without CRLF: {}", show(line)));
            return None;
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(&String::from_utf8_lossy(&line[..digits]), 16);
        let after = line[digits..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        let (Ok(size), true) = (size, after.is_none_or(|byte| *byte == b';')) else {
            found.push(format!("a bad chunk size: {}", show(line)));
            return None;
        };
        at = end + 1;
        if size == 0 {
            break;
        }
        let after = bytes.get(at.checked_add(size)?..at.checked_add(size)?.checked_add(2)?)?;
        if after != b"\r\n" {
            found.push(format!("no CRLF after a chunk: {}", show(after)));
            return None;
        }
        at += size + 2;
    }
    loop {
        let end = at + find(&bytes[at..], b"\n")?;
        let line = &bytes[at..=end];
        at = end + 1;
        if line == b"\r\n" {
            return Some(at);
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        if !line.ends_with(b"\r\n") || colon == 0 || !line[..colon].iter().all(|byte| token(*byte)) {
            found.push(format!("a bad trailer: {}", show(line)));
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::complaints;

    #[test]
    fn a_sound_connection_has_no_complaint() {
        let sound =
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\nPOST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPOST /d HTTP";
        assert_eq!(complaints(sound), Vec::<String>::new());
    }

    #[test]
    fn each_ambiguity_is_seen() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
            "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(!complaints(bad.as_bytes()).is_empty(), "{bad:?}");
        }
    }
}
