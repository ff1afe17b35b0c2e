//! Cases that are nothing but bytes and what may become of them.

use std::time::Duration;

use crate::case::{Group, Outcome, Severity, want};
use crate::client::Response;
use crate::lane::Lane;

/// A request that must never run, sent after or inside one that is not sound. Its path is what `lint` looks for.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// Only an error and the end of the connection; what follows does not run.
    Refuse,
    /// Only an error; it is clear where it ends, so that more requests may follow.
    Reject,
    /// Refused, or one sound request at the endpoint and the end of the connection after its answer.
    PassAlone,
    /// Refused, or one sound request at the endpoint.
    Pass,
    /// It has to be answered, from one request at the endpoint.
    Must,
}

/// Sends the bytes and judges both ends.
pub(crate) fn judge(lane: &Lane, bytes: &[u8], may: May) -> Outcome {
    let mut client = lane.client()?;
    client.send(bytes);
    if may == May::Refuse {
        client.send(SMUGGLED);
    }
    let method = if bytes.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let response = client.response_to(method);
    if response.ok() && !matches!(may, May::Refuse | May::Reject) {
        return passed(lane, &response, client.end_within(Duration::from_millis(50)).is_some(), may);
    }
    want!(may != May::Must, "200", "{response}");
    let expected = "an error and a closed connection";
    want!(response.status == 0 || response.status >= 400, expected, "{response}");
    if may == May::Reject {
        let reached = lane.main().until(Duration::from_millis(30), |it| !it.is_empty());
        want!(!reached, "nothing at the endpoint", "{response} to the client, and a request at the endpoint");
        return Ok(());
    }
    // A second error, for what was left, is no harm.
    let (rest, end) = client.everything();
    let success = ["HTTP/1.1 2", "HTTP/1.0 2"].iter().any(|it| crate::bytes::find(&rest, it.as_bytes()).is_some());
    want!(!success, expected, "{response}, then {}", crate::bytes::show(&rest));
    // After a 5xx about something that is well-formed the connection may stay; then nothing more was sent either.
    want!(end.is_some() || may != May::Refuse, expected, "{response}, and the connection stays open");
    let reached = lane.main().until(Duration::from_millis(80), |it| it.iter().any(|it| it.whole));
    want!(!reached, "nothing whole at the endpoint", "{response} to the client, and a request at the endpoint");
    Ok(())
}

fn passed(lane: &Lane, response: &Response, ended: bool, may: May) -> Outcome {
    lane.main().until(Duration::from_millis(30), |it| it.len() > 1);
    let count = lane.main().count();
    want!(count == 1, "one request at the endpoint", "{count}, and {response}");
    let closing = ended || !response.keeps();
    want!(may != May::PassAlone || closing, "the connection closed after it", "{response}, and the connection stays");
    Ok(())
}

/// Adds one such case.
pub(crate) fn add(
    group: &mut Group,
    severity: Severity,
    reference: &'static str,
    id: impl Into<String>,
    bytes: impl Into<Vec<u8>>,
    may: May,
) {
    let bytes = bytes.into();
    // Too strict is no danger.
    let severity = if matches!(may, May::Must | May::Reject) { Severity::Correctness } else { severity };
    group.add(severity, reference, id, move |lane| judge(lane, &bytes, may));
}

/// A POST with these lines in its head, each without its line end, and this body.
pub(crate) fn post(lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    message("POST /c HTTP/1.1", lines, body)
}

/// The same with any request line.
pub(crate) fn message(line: &str, lines: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    [line.as_bytes(), b"\r\nHost: a.test\r\n", lines.as_ref(), b"\r\n\r\n", body.as_ref()].concat()
}
