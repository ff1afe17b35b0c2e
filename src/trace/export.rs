//! From the workers' queue to the collector: batch after batch, over a connection each, on the control side.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Receiver;

use super::{Exchange, Shared, otlp};
use crate::config::Tracing;
use crate::config::traces::Collector;

/// Spans of one request to the collector, or a few more: some 300 KiB.
const BATCH: usize = 512;

/// How often a batch is sent to a collector that asks to try again (OTLP: 429, 502, 503, 504) or cannot be reached.
const TRIES: u32 = 3;

/// How long until the second try; the next waits twice as long.
const PAUSE: Duration = Duration::from_secs(1);

/// At most one complaint about the collector in this time.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Bytes that are read until there must have been a status.
const ANSWER: usize = 16 << 10;

/// Exports to the end of the queue.
pub(super) async fn run(config: Tracing, mut queue: Receiver<super::Batch>, shared: Arc<Shared>) {
    let mut complained: Option<Instant> = None;
    while let Some(mut batch) = queue.recv().await {
        let count = |batch: &[Box<Exchange>]| batch.iter().map(|it| it.spans()).sum::<usize>();
        while count(&batch) < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.extend(more);
        }
        let spans = count(&batch) as u64;
        let message = otlp::request(&config.service, &batch);
        drop(batch);
        match deliver(&config, &message).await {
            Ok(()) => drop(shared.exported.fetch_add(spans, Relaxed)),
            Err(error) => {
                shared.failed.fetch_add(spans, Relaxed);
                if complained.is_none_or(|at| at.elapsed() >= COMPLAINTS) {
                    complained = Some(Instant::now());
                    tracing::warn!(collector = %config.endpoint, spans, error, "the collector takes no spans, they are lost");
                }
            }
        }
    }
}

/// Why the collector has not taken a batch.
enum Refusal {
    /// It may later.
    Now(String),
    /// It never will.
    Ever(String),
}

async fn deliver(config: &Tracing, message: &[u8]) -> Result<(), String> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        let sending = tokio::time::timeout(config.timeout.0, post(&config.endpoint, message)).await;
        let why = match sending.unwrap_or_else(|_| Err(Refusal::Now("it takes too long".into()))) {
            Ok(()) => return Ok(()),
            Err(Refusal::Ever(why)) => return Err(why),
            Err(Refusal::Now(why)) => why,
        };
        if tries == TRIES {
            return Err(why);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        tries += 1;
    }
}

/// One request over a connection of its own: at most a few a second, mostly on this machine.
async fn post(collector: &Collector, message: &[u8]) -> Result<(), Refusal> {
    let now = |error: io::Error| Refusal::Now(error.to_string());
    let Collector { authority, path } = collector;
    let mut stream = TcpStream::connect(&**authority).await.map_err(now)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: moongate/{}\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        message.len(),
    );
    stream.write_all(head.as_bytes()).await.map_err(now)?;
    stream.write_all(message).await.map_err(now)?;
    let mut answer = Vec::new();
    loop {
        match status(&answer) {
            Some(200..=299) => return Ok(()),
            Some(status @ (429 | 502 | 503 | 504)) => return Err(Refusal::Now(format!("it answers {status}"))),
            // An interim answer, which somebody else could have asked for.
            Some(100..=199) => drop(answer.drain(..end(&answer).unwrap_or(answer.len()))),
            Some(status) => return Err(Refusal::Ever(format!("it answers {status}"))),
            None => {}
        }
        if answer.len() > ANSWER || stream.read_buf(&mut answer).await.map_err(now)? == 0 {
            return Err(Refusal::Now("it gives no answer of HTTP".into()));
        }
    }
}

/// The status of an answer whose head is there.
fn status(answer: &[u8]) -> Option<u16> {
    end(answer)?;
    let digits = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Where a head ends.
fn end(answer: &[u8]) -> Option<usize> {
    memchr::memmem::find(answer, b"\r\n\r\n").map(|at| at + 4)
}
