//! What filters want, checked before anybody believes it: a guest's answer is untrusted input.

use http::StatusCode;

use super::Failure;
use super::bindings::moongate::plugin::filter_types::{
    BodyVerdict as WitBodyVerdict, Reply as WitReply, Verdict as WitVerdict,
};
use super::host::Show;
use super::host::imports::{final_status, writable};
use crate::message::ResponseHead;

/// Bytes of a filter's own answer.
const REPLY_BODY: usize = 1 << 20;

/// Bytes of its head, counted as in an exchange's.
const REPLY_HEAD: usize = 64 << 10;

/// How many times longer a piece of a body may become; what becomes shorter than an own answer may be anything.
const GROWTH: usize = 16;

/// What a filter wants.
#[derive(Debug)]
pub enum Verdict {
    /// On to the next.
    Next,
    /// These bytes instead of the piece of a body that was shown.
    Replace(Vec<u8>),
    /// This answer, now.
    Respond(ResponseHead, Vec<u8>),
}

/// What a call of a filter brought: what it wants, and how it wants to see the body if it asked for that.
pub type Said<E> = Result<(Verdict, Option<Show>), E>;

/// What a component says.
pub(super) fn check(verdict: WitVerdict) -> Result<Verdict, Failure> {
    match verdict {
        WitVerdict::Next => Ok(Verdict::Next),
        WitVerdict::Respond(reply) => of(&reply),
    }
}

/// The same, about a piece of a body of so many bytes.
pub(super) fn check_body(verdict: WitBodyVerdict, bytes: usize) -> Result<Verdict, Failure> {
    match verdict {
        WitBodyVerdict::Next => Ok(Verdict::Next),
        WitBodyVerdict::Respond(reply) => of(&reply),
        WitBodyVerdict::Replace(by) => {
            replacement(&by, bytes)?;
            Ok(Verdict::Replace(by))
        }
    }
}

fn of(reply: &WitReply) -> Result<Verdict, Failure> {
    let headers = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    answer(reply.status, headers, &reply.body)
}

/// What is to go on instead of a piece of so many bytes.
pub(super) fn replacement(by: &[u8], bytes: usize) -> Result<&[u8], Failure> {
    if by.len() > bytes.saturating_mul(GROWTH).max(REPLY_BODY) {
        return Err(Failure::Nonsense(format!("it made {} bytes of a piece of {bytes}", by.len())));
    }
    Ok(by)
}

/// An answer of the filter's own. Its headers are looked at one after the other, and not beyond what is too much.
pub(super) fn answer<'a>(
    status: u16,
    headers: impl Iterator<Item = (&'a str, &'a str)>,
    body: &[u8],
) -> Result<Verdict, Failure> {
    let status: StatusCode =
        final_status(status).ok_or_else(|| Failure::Nonsense(format!("it responded with status {status}")))?;
    if body.len() > REPLY_BODY {
        return Err(Failure::Nonsense(format!("it responded with {} bytes of body", body.len())));
    }
    let mut head = ResponseHead::new(status);
    let mut size = 0_usize;
    for (name, value) in headers {
        size = size.saturating_add(name.len() + value.len() + 32);
        if size > REPLY_HEAD {
            return Err(Failure::Nonsense(format!("it responded with {size} bytes of head, or more")));
        }
        if !writable(name, value) {
            return Err(Failure::Nonsense(format!("it responded with the header {name:?}: {value:?}")));
        }
        head.fields.append(name, value.as_bytes());
    }
    Ok(Verdict::Respond(head, body.to_vec()))
}
