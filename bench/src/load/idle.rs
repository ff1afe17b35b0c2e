//! Connections that have had one request each, and wait.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::request::Requests;
use super::{Ask, h1};
use crate::origin;

/// Opens them one after the other.
pub(super) fn open(port: u16, connections: usize) -> Result<Vec<TcpStream>> {
    let expected = origin::SMALL.len() as u64;
    let ask = Ask { path: "/bench/item?id=1".into(), paths: 1, upload: 0, expected };
    let mut request = Vec::new();
    Requests::new(&ask, false).write(&mut request);
    (0..connections)
        .map(|nth| {
            let context = || format!("connection {nth} of {connections}");
            let mut socket = TcpStream::connect(("127.0.0.1", port)).with_context(context)?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            socket.write_all(&request).with_context(context)?;
            let mut answers = h1::Answers::awaited(Instant::now());
            let mut buffer = [0; 4096];
            loop {
                let read = socket.read(&mut buffer).with_context(context)?;
                ensure!(read > 0, "{} was closed", context());
                if answers.take(&buffer[..read], expected)? {
                    break Ok(socket);
                }
            }
        })
        .collect()
}
