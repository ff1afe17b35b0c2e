//! The HTTP/2 client of the cases.

use std::net::SocketAddr;

use crate::client::Client;
use crate::h2::{H2, PREFACE};
use crate::lane::Lane;
use crate::stream::{Broken, Reader, Stream, connect};

/// With prior knowledge, our SETTINGS sent and theirs read.
pub(crate) fn open(lane: &Lane) -> Result<H2, String> {
    open_with(lane, &[])
}

/// The same, announcing these settings.
pub(crate) fn open_with(lane: &Lane, settings: &[(u16, u32)]) -> Result<H2, String> {
    greet(raw(lane.h2())?, settings)
}

/// A connection on which nothing was said yet.
pub(crate) fn raw(to: SocketAddr) -> Result<H2, String> {
    let socket = connect(to, None).map_err(|error| format!("connecting to {to}: {error}"))?;
    Ok(H2::new(Reader::new(Stream::Plain(socket))))
}

/// Over a connection that agreed to HTTP/2 by ALPN.
pub(crate) fn over(client: Client) -> Result<H2, String> {
    greet(H2::new(client.reader), &[])
}

fn greet(mut h2: H2, settings: &[(u16, u32)]) -> Result<H2, String> {
    h2.reader.send(PREFACE);
    h2.set(settings);
    // Until their acknowledgement, so that what a case then sees is the case's.
    let until = std::time::Instant::now() + h2.patience;
    while h2.acknowledged == 0 {
        match h2.step(until) {
            Ok(_) => {}
            Err(Broken::TooLate) => return Err("no answer to SETTINGS".into()),
            Err(broken) => return Err(format!("after SETTINGS: {broken:?}")),
        }
    }
    h2.acknowledged = 0;
    Ok(h2)
}

/// The four pseudo-fields of a request.
pub(crate) fn head<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a.test")]
}

/// The same with more fields after them.
pub(crate) fn head_with<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = head(method, path);
    fields.extend_from_slice(more);
    fields
}
