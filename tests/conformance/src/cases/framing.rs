//! How long a message is: Content-Length and Transfer-Encoding, alone, together and disguised.

use super::raw::{May, SMUGGLED, add, message, post};
use crate::case::{Group, Severity::Safety};

/// What a line is to a strict reader.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The same, in a spelling that nobody has to accept.
    ChunkedAtWill,
    /// A Transfer-Encoding that is none, or a head that cannot be read.
    Faulty,
    /// Another field, or something to be left out: then the message is as long as its Content-Length says.
    Other,
}

/// Lines that a lenient reader takes for `Transfer-Encoding: chunked`.
const CODINGS: &[(&str, &[u8], Line)] = &[
    ("plain", b"Transfer-Encoding: chunked", Line::Chunked),
    ("upper-case", b"TRANSFER-ENCODING: CHUNKED", Line::Chunked),
    ("tab", b"Transfer-Encoding:\tchunked", Line::Chunked),
    ("spaces", b"Transfer-Encoding:   chunked  ", Line::Chunked),
    ("no-space", b"Transfer-Encoding:chunked", Line::Chunked),
    ("empty-first-member", b"Transfer-Encoding: , chunked", Line::ChunkedAtWill),
    ("empty-last-member", b"Transfer-Encoding: chunked,", Line::ChunkedAtWill),
    ("xchunked", b"Transfer-Encoding: xchunked", Line::Faulty),
    ("chunkedx", b"Transfer-Encoding: chunkedx", Line::Faulty),
    ("space-before-colon", b"Transfer-Encoding : chunked", Line::Faulty),
    ("tab-before-colon", b"Transfer-Encoding\t: chunked", Line::Faulty),
    ("vertical-tab-before", b"Transfer-Encoding: \x0bchunked", Line::Faulty),
    ("vertical-tab-after", b"Transfer-Encoding: chunked\x0b", Line::Faulty),
    ("form-feed", b"Transfer-Encoding:\x0cchunked", Line::Faulty),
    ("nul-after", b"Transfer-Encoding: chunked\0", Line::Faulty),
    ("nul-within", b"Transfer-Encoding: chun\0ked", Line::Faulty),
    ("nul-in-name", b"Transfer-Encoding\0: chunked", Line::Other),
    ("double-quotes", b"Transfer-Encoding: \"chunked\"", Line::Faulty),
    ("single-quotes", b"Transfer-Encoding: 'chunked'", Line::Faulty),
    ("parameter", b"Transfer-Encoding: chunked;x=1", Line::Faulty),
    ("parameter-space", b"Transfer-Encoding: chunked ;x", Line::Faulty),
    ("then-identity", b"Transfer-Encoding: chunked, identity", Line::Faulty),
    ("after-identity", b"Transfer-Encoding: identity, chunked", Line::Faulty),
    ("identity", b"Transfer-Encoding: identity", Line::Faulty),
    ("twice-in-list", b"Transfer-Encoding: chunked, chunked", Line::Faulty),
    ("two-lines", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Line::Faulty),
    ("line-then-identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Line::Faulty),
    ("identity-then-line", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", Line::Faulty),
    ("line-then-junk", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", Line::Faulty),
    ("then-gzip", b"Transfer-Encoding: chunked, gzip", Line::Faulty),
    ("empty", b"Transfer-Encoding:", Line::Faulty),
    ("only-comma", b"Transfer-Encoding: ,", Line::Faulty),
    ("underscore", b"Transfer_Encoding: chunked", Line::Other),
    ("vertical-tab-in-name", b"\x0bTransfer-Encoding: chunked", Line::Other),
    ("leading-space", b" Transfer-Encoding: chunked", Line::Other),
    ("folded-value", b"Transfer-Encoding:\r\n chunked", Line::Faulty),
    ("folded-name", b"Transfer-Encoding\r\n : chunked", Line::Other),
    ("in-a-fold", b"X: y\r\n Transfer-Encoding: chunked", Line::Other),
    ("after-bare-cr", b"X: y\rTransfer-Encoding: chunked", Line::Other),
    ("after-bare-lf", b"X: y\nTransfer-Encoding: chunked", Line::Faulty),
    ("before-bare-lf", b"Transfer-Encoding: chunked\nX: y", Line::Faulty),
    ("before-bare-cr", b"Transfer-Encoding: chunked\rX: y", Line::Faulty),
    ("kelvin-sign", "Transfer-Encoding: chun\u{212a}ed".as_bytes(), Line::Faulty),
    ("dotless-i", "Transfer-Encod\u{131}ng: chunked".as_bytes(), Line::Other),
    ("zero-width-space", "Transfer-Encoding: \u{200b}chunked".as_bytes(), Line::Faulty),
    ("high-byte", b"Transfer-Encoding: \xffchunked", Line::Faulty),
    ("no-break-space", b"Transfer-Encoding:\xa0chunked", Line::Faulty),
    ("equals", b"Transfer-Encoding=chunked", Line::Other),
    ("no-colon", b"Transfer-Encoding chunked", Line::Other),
    ("two-colons", b"Transfer-Encoding:: chunked", Line::Faulty),
    ("backslash", b"Transfer-Encoding: chunk\\ed", Line::Faulty),
    ("newline-escape", b"Transfer-Encoding: chunked\x85", Line::Faulty),
];

/// Values that some readers take for 5; the last says what may become of the request.
const LENGTHS: &[(&str, &[u8], May)] = &[
    ("plain", b"Content-Length: 5", May::Must),
    ("leading-zeros", b"Content-Length: 0005", May::Pass),
    ("surrounding-space", b"Content-Length: \t 5 \t", May::Must),
    ("plus", b"Content-Length: +5", May::Refuse),
    ("minus", b"Content-Length: -5", May::Refuse),
    ("minus-zero", b"Content-Length: -0", May::Refuse),
    ("hex", b"Content-Length: 0x5", May::Refuse),
    ("octal", b"Content-Length: 0o5", May::Refuse),
    ("exponent", b"Content-Length: 5e0", May::Refuse),
    ("fraction", b"Content-Length: 5.0", May::Refuse),
    ("underscore", b"Content-Length: 0_5", May::Refuse),
    ("inner-space", b"Content-Length: 5 5", May::Refuse),
    ("word", b"Content-Length: five", May::Refuse),
    ("blank", b"Content-Length: ", May::Refuse),
    ("no-value", b"Content-Length:", May::Refuse),
    ("comma-only", b"Content-Length: ,", May::Refuse),
    ("quoted", b"Content-Length: \"5\"", May::Refuse),
    ("parameter", b"Content-Length: 5;a=b", May::Refuse),
    ("vertical-tab", b"Content-Length: \x0b5", May::Refuse),
    ("nul", b"Content-Length: 5\0", May::Refuse),
    ("bare-cr", b"Content-Length: 5\r1", May::Refuse),
    ("full-width", "Content-Length: \u{ff15}".as_bytes(), May::Refuse),
    ("over-64-bits", b"Content-Length: 18446744073709551621", May::Refuse),
    ("over-63-bits", b"Content-Length: 9223372036854775813", May::Refuse),
    ("over-32-bits", b"Content-Length: 4294967301", May::Refuse),
    ("30-digits", b"Content-Length: 999999999999999999999999999999", May::Refuse),
    ("list-same", b"Content-Length: 5, 5", May::Pass),
    ("list-differing", b"Content-Length: 5, 46", May::Refuse),
    ("list-empty-member", b"Content-Length: 5,", May::Refuse),
    ("lines-same", b"Content-Length: 5\r\nContent-Length: 5", May::Pass),
    ("lines-differing", b"Content-Length: 5\r\nContent-Length: 46", May::Refuse),
    ("lines-differing-down", b"Content-Length: 46\r\nContent-Length: 5", May::Refuse),
    ("lines-zero-last", b"Content-Length: 5\r\nContent-Length: 0", May::Refuse),
    ("lines-zero-first", b"Content-Length: 0\r\nContent-Length: 5", May::Refuse),
    ("lines-spelled-differently", b"Content-Length: 5\r\nContent-Length: 05", May::Pass),
    ("lines-third-differs", b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 46", May::Refuse),
    ("space-before-colon", b"Content-Length : 5", May::Refuse),
    ("space-before-second", b"Content-Length: 5\r\nContent-Length : 46", May::Refuse),
    ("folded", b"Content-Length:\r\n 5", May::Pass),
    ("fold-adds-digit", b"Content-Length: 5\r\n 6", May::Refuse),
    ("underscore-name", b"Content-Length: 5\r\nContent_Length: 46", May::Pass),
];

pub(super) fn fill(group: &mut Group) {
    let whole = format!("0\r\n\r\n{SMUGGLED}");
    let inner = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    for (name, line, kind) in CODINGS {
        // Read by its length it is one request; read as chunked, the second starts within.
        let length = format!("Content-Length: {}\r\n", whole.len());
        let both = post([length.as_bytes(), line].concat(), &whole);
        let may = if *kind == Line::Other { May::Pass } else { May::PassAlone };
        add(group, Safety, "RFC 9112 6.1, 6.3", format!("cl-te-{name}"), both, may);
        if *kind != Line::Other {
            // Read as chunked it is one request; by its length, the second is the chunk.
            let both = post([line, &b"\r\nContent-Length: 4"[..]].concat(), &inner);
            add(group, Safety, "RFC 9112 6.1, 6.3", format!("te-cl-{name}"), both, May::PassAlone);
        }
        let may = if *kind == Line::Chunked { May::Must } else { May::Pass };
        add(group, Safety, "RFC 9112 6.1", format!("te-{name}"), post(line, &inner), may);
    }
    for (name, line, may) in LENGTHS {
        add(group, Safety, "RFC 9112 6.3; RFC 9110 8.6", format!("cl-{name}"), post(line, "hello"), *may);
    }
    for (method, may) in
        [("GET", May::Pass), ("HEAD", May::Pass), ("DELETE", May::Pass), ("OPTIONS", May::Pass), ("PUT", May::Must)]
    {
        let length = format!("Content-Length: {}", SMUGGLED.len());
        let bytes = message(&format!("{method} /c HTTP/1.1"), &length, SMUGGLED);
        add(group, Safety, "RFC 9110 9.3.1", format!("request-in-body-of-{}", method.to_lowercase()), bytes, may);
        let bytes = message(&format!("{method} /c HTTP/1.1"), "Transfer-Encoding: chunked", &inner);
        add(group, Safety, "RFC 9110 9.3.1", format!("request-in-chunk-of-{}", method.to_lowercase()), bytes, may);
    }
    for (name, lines, body) in [
        ("chunked", "Transfer-Encoding: chunked", inner.as_str()),
        ("chunked-kept-alive", "Connection: keep-alive\r\nTransfer-Encoding: chunked", &inner),
        ("chunked-and-length", "Content-Length: 4\r\nTransfer-Encoding: chunked", &inner),
    ] {
        let bytes = message("POST /c HTTP/1.0", lines, body);
        add(group, Safety, "RFC 9112 6.1", format!("http-1.0-{name}"), bytes, May::PassAlone);
    }
    for (name, named) in
        [("content-length", "Content-Length"), ("transfer-encoding", "Transfer-Encoding"), ("host", "Host")]
    {
        // Taken away as hop-by-hop, the body becomes a request.
        let lines = match name {
            "transfer-encoding" => format!("Connection: {named}\r\nTransfer-Encoding: chunked"),
            _ => format!("Connection: {named}\r\nContent-Length: {}", SMUGGLED.len()),
        };
        let body = if name == "transfer-encoding" { inner.as_str() } else { SMUGGLED };
        add(group, Safety, "RFC 9110 7.6.1", format!("connection-names-{name}"), post(lines, body), May::Pass);
    }
}
