//! Request lines and header fields that are not as they should be.

use super::raw::{May, add, message};
use crate::case::{Group, Severity::*, want};

const LINES: &[(&str, &[u8], May)] = &[
    ("plain", b"GET /c HTTP/1.1", May::Must),
    ("unknown-method", b"FROB /c HTTP/1.1", May::Pass),
    ("long-method", b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHIJKL /c HTTP/1.1", May::Pass),
    ("lower-case-method", b"get /c HTTP/1.1", May::Pass),
    ("method-with-bang", b"GE!T /c HTTP/1.1", May::Pass),
    ("no-version", b"GET /c", May::Reject),
    ("no-target", b"GET HTTP/1.1", May::Refuse),
    ("empty-target", b"GET  HTTP/1.1", May::Refuse),
    ("two-spaces-first", b"GET  /c HTTP/1.1", May::Pass),
    ("two-spaces-second", b"GET /c  HTTP/1.1", May::Pass),
    ("tab-first", b"GET\t/c HTTP/1.1", May::Pass),
    ("tab-second", b"GET /c\tHTTP/1.1", May::Pass),
    ("vertical-tab", b"GET\x0b/c HTTP/1.1", May::Pass),
    ("form-feed", b"GET /c\x0cHTTP/1.1", May::Pass),
    ("bare-cr-as-space", b"GET\r/c HTTP/1.1", May::Pass),
    ("leading-space", b" GET /c HTTP/1.1", May::Pass),
    ("trailing-space", b"GET /c HTTP/1.1 ", May::Pass),
    ("trailing-word", b"GET /c HTTP/1.1 x", May::Refuse),
    ("space-in-target", b"GET /c d HTTP/1.1", May::Refuse),
    ("version-in-target", b"GET /c HTTP/1.1 HTTP/1.1", May::Refuse),
    ("nul-in-method", b"GE\0T /c HTTP/1.1", May::Refuse),
    ("control-in-method", b"GE\x01T /c HTTP/1.1", May::Refuse),
    ("high-byte-in-method", b"GE\xffT /c HTTP/1.1", May::Refuse),
    ("colon-in-method", b"GET: /c HTTP/1.1", May::Refuse),
    ("paren-in-method", b"G(ET /c HTTP/1.1", May::Refuse),
    ("empty-method", b"/c HTTP/1.1", May::Refuse),
    ("nul-in-target", b"GET /c\0d HTTP/1.1", May::Refuse),
    ("control-in-target", b"GET /c\x01d HTTP/1.1", May::Refuse),
    ("del-in-target", b"GET /c\x7fd HTTP/1.1", May::Refuse),
    ("bare-cr-in-target", b"GET /c\rd HTTP/1.1", May::Refuse),
    ("tab-in-target", b"GET /c\td HTTP/1.1", May::Refuse),
    ("relative-target", b"GET c HTTP/1.1", May::Reject),
    ("asterisk-get", b"GET * HTTP/1.1", May::Reject),
    ("query-only", b"GET ?a=b HTTP/1.1", May::Reject),
    ("http-0.9", b"GET /c HTTP/0.9", May::Reject),
    ("http-1.2", b"GET /c HTTP/1.2", May::Pass),
    ("http-1.10", b"GET /c HTTP/1.10", May::Reject),
    ("http-1.01", b"GET /c HTTP/1.01", May::Reject),
    ("http-01.1", b"GET /c HTTP/01.1", May::Reject),
    ("http-2.0", b"GET /c HTTP/2.0", May::Reject),
    ("http-2", b"GET /c HTTP/2", May::Reject),
    ("http-3.0", b"GET /c HTTP/3.0", May::Reject),
    ("http-1", b"GET /c HTTP/1", May::Reject),
    ("http-1-dot", b"GET /c HTTP/1.", May::Reject),
    ("http-plus", b"GET /c HTTP/+1.1", May::Reject),
    ("http-comma", b"GET /c HTTP/1,1", May::Reject),
    ("http-hex", b"GET /c HTTP/1.A", May::Reject),
    ("lower-case-http", b"GET /c http/1.1", May::Reject),
    ("mixed-case-http", b"GET /c HtTP/1.1", May::Reject),
    ("http-no-slash", b"GET /c HTTP1.1", May::Reject),
    ("http-space", b"GET /c HTTP/ 1.1", May::Refuse),
    ("other-protocol", b"GET /c ICY/1.1", May::Reject),
    ("https-protocol", b"GET /c HTTPS/1.1", May::Reject),
];

/// Fields as they stand after `Host`.
const FIELDS: &[(&str, &[u8], May)] = &[
    ("plain", b"X: y", May::Must),
    ("empty-value", b"X:", May::Must),
    ("high-bytes-in-value", b"X: \xc3\xa9", May::Must),
    ("tab-in-value", b"X: a\tb", May::Must),
    ("all-token-characters", b"!#$%&'*+-.^`|~0aZ: y", May::Pass),
    ("colon-in-value", b"X: a:b", May::Must),
    ("space-before-colon", b"X : y", May::Refuse),
    ("tab-before-colon", b"X\t: y", May::Refuse),
    ("no-colon", b"X y", May::Pass),
    ("empty-name", b": y", May::Pass),
    ("leading-space-first", b" X: y", May::Pass),
    ("obs-fold", b"X: y\r\n z", May::Pass),
    ("obs-fold-tab", b"X: y\r\n\tz", May::Pass),
    ("obs-fold-empty", b"X: y\r\n \r\nZ: 1", May::Pass),
    ("bare-lf-line-end", b"X: y\nZ: 1", May::Pass),
    ("bare-cr", b"X: y\rZ: 1", May::Pass),
    ("cr-cr-lf", b"X: y\r\r\nZ: 1", May::Pass),
    ("nul-in-value", b"X: a\0b", May::Pass),
    ("control-in-value", b"X: a\x01b", May::Pass),
    ("escape-in-value", b"X: a\x1bb", May::Pass),
    ("del-in-value", b"X: a\x7fb", May::Pass),
    ("backspace-in-value", b"X: a\x08b", May::Pass),
    ("nul-in-name", b"X\0Y: a", May::Pass),
    ("control-in-name", b"X\x01Y: a", May::Pass),
    ("space-in-name", b"X Y: a", May::Pass),
    ("high-byte-in-name", b"X\xffY: a", May::Pass),
    ("paren-in-name", b"X(Y): a", May::Pass),
    ("slash-in-name", b"X/Y: a", May::Pass),
    ("at-in-name", b"X@Y: a", May::Pass),
    ("quote-in-name", b"X\"Y: a", May::Pass),
    ("brackets-in-name", b"X[Y]: a", May::Pass),
    ("comma-in-name", b"X,Y: a", May::Pass),
    ("semicolon-in-name", b"X;Y: a", May::Pass),
    ("bare-lf-smuggles-field", b"X: y\nX-Forwarded-For: 6.6.6.6", May::Pass),
    ("fold-smuggles-field", b"X: y\r\n X-Forwarded-For: 6.6.6.6", May::Pass),
    ("cr-smuggles-field", b"X: y\rX-Forwarded-For: 6.6.6.6", May::Pass),
];

pub(super) fn fill(group: &mut Group) {
    for (name, line, may) in LINES {
        let bytes = [*line, b"\r\nHost: a.test\r\n\r\n"].concat();
        add(group, Safety, "RFC 9112 3", format!("line-{name}"), bytes, *may);
    }
    for (name, field, may) in FIELDS {
        let bytes = message("GET /c HTTP/1.1", field, "");
        let may = *may;
        let severity = if may == May::Must { Correctness } else { Safety };
        group.add(severity, "RFC 9112 5; RFC 9110 5.5", format!("field-{name}"), move |lane| {
            super::raw::judge(lane, &bytes, may)?;
            let told = lane.main().last().list("x-forwarded-for");
            want!(!told.contains("6.6.6.6"), "no forged X-Forwarded-For", "{told}");
            Ok(())
        });
    }
    for (name, bytes, may) in [
        ("bare-lf-everywhere", "GET /c HTTP/1.1\nHost: a.test\n\n", May::Pass),
        ("bare-lf-ends-head", "GET /c HTTP/1.1\r\nHost: a.test\r\n\n", May::Pass),
        ("bare-lf-after-line", "GET /c HTTP/1.1\nHost: a.test\r\n\r\n", May::Pass),
        ("lf-crlf-ends-head", "GET /c HTTP/1.1\r\nHost: a.test\n\r\n", May::Pass),
        ("cr-cr-ends-head", "GET /c HTTP/1.1\r\nHost: a.test\r\r", May::Refuse),
        ("empty-line-before", "\r\nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n", May::Must),
        ("two-empty-lines-before", "\r\n\r\nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n", May::Pass),
        ("bare-lf-before", "\nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n", May::Pass),
        ("bare-cr-before", "\rGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n", May::Pass),
        ("space-line-after-request-line", "GET /c HTTP/1.1\r\n \r\nHost: a.test\r\n\r\n", May::Pass),
        ("field-before-host-folded", "GET /c HTTP/1.1\r\n X: y\r\nHost: a.test\r\n\r\n", May::Pass),
        ("simple-request", "GET /c\r\n\r\n", May::Reject),
        ("tls-on-plain-port", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03\r\n\r\n", May::Refuse),
        ("bytes-of-nothing", "\0\0\0\0\r\n\r\n", May::Refuse),
        ("response-as-request", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", May::Refuse),
    ] {
        add(group, Safety, "RFC 9112 2.2, 3", format!("head-{name}"), bytes, may);
    }
    for (name, field, shown) in [
        ("x-forwarded-for", "X_Forwarded_For: 6.6.6.6", "x-forwarded-for"),
        ("x-forwarded-proto", "X_Forwarded_Proto: https", "x-forwarded-proto"),
        ("x-forwarded-host", "X-Forwarded_Host: evil.test", "x-forwarded-host"),
        ("x-real-ip", "X_Real_IP: 6.6.6.6", "x-real-ip"),
        ("forwarded", "Forwarded_: for=6.6.6.6", "forwarded-"),
        ("host", "_Host: evil.test", "-host"),
        ("content-length", "Content_Length: 5", "content-length"),
        ("transfer-encoding", "Transfer_Encoding: chunked", "transfer-encoding"),
    ] {
        // CGI and WSGI turn both `-` and `_` into `_`: the endpoint cannot tell the two.
        let managed = !matches!(name, "forwarded" | "host" | "x-real-ip");
        let severity = if managed { Safety } else { Courtesy };
        group.add(severity, "CVE-2015-0219 and its like", format!("underscore-{name}"), move |lane| {
            let response = crate::client::ask(lane.plain(), message("GET /c HTTP/1.1", field, ""))?;
            let request = lane.main().last();
            let twins = request
                .fields
                .iter()
                .filter(|(it, _)| it.contains('_') && it.to_lowercase().replace('_', "-") == shown);
            let twins = twins.count();
            want!(
                !managed || twins == 0,
                "no look-alike of what the gateway manages",
                "{response}, {field} at the endpoint"
            );
            want!(managed || response.ok() || response.status == 400, "an answer", "{response}");
            Ok(())
        });
    }
}
