//! Streams of server-sent events (the HTML standard, section 9.2): what happens, and how the gateway does from second to
//! second. A stream has a task of its own, which ends with its client, with the gateway, or when the client takes nothing.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::body::Body;
use super::{Admin, live};
use crate::events::{Event, Events, Kind, Level};

/// What these streams are.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Without anything to say there is a comment so often, so that both sides find out that the other is gone. Proxies mostly
/// close what is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How often a watcher is told how the gateway does.
const PACE: Duration = Duration::from_secs(1);

/// How long a client may take nothing of what is there for it.
const STALLED: Duration = Duration::from_secs(20);

/// Pieces that wait for the client. It can always have the rest later: events are kept, and states are replaced.
const PIECES: usize = 2;

/// Where a client that lost the connection may come back: after two seconds.
const RETRY: &str = "retry: 2000\n\n";

/// Who watches.
pub(super) struct Watcher {
    pub(super) admin: Arc<Admin>,
    /// One of so many.
    pub(super) place: OwnedSemaphorePermit,
    /// To be notified when it takes nothing.
    pub(super) stalled: Arc<Notify>,
    /// The number of the last event that it has seen.
    pub(super) after: u64,
}

/// Pieces on their way to a client.
struct Outlet {
    pieces: mpsc::Sender<Bytes>,
    stalled: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Outlet {
    /// False when there is nobody any more.
    async fn put(&self, text: String) -> bool {
        match timeout(STALLED, self.pieces.send(text.into())).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                self.stalled.notify_one();
                false
            }
        }
    }
}

/// The events after a number, and whether there were more, as JSON.
pub(super) fn list(events: &Events, after: u64) -> String {
    let (events, missed) = events.since(after);
    json!({ "missed": missed, "events": events }).to_string()
}

/// What happens, from then on.
pub(super) fn events(watcher: Watcher) -> Body {
    let (outlet, admin, mut after, body) = open(watcher);
    tokio::spawn(async move {
        let events = &admin.state.events;
        let (mut last, mut stop) = (events.last(), admin.state.stop.clone());
        let mut text = RETRY.to_owned();
        loop {
            last.borrow_and_update();
            after = write_events(&mut text, events, after);
            if !text.is_empty() && !outlet.put(std::mem::take(&mut text)).await {
                return;
            }
            tokio::select! {
                changed = last.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(HEARTBEAT) => text.push_str(": still here\n\n"),
                _ = stop.changed() => return,
                () = outlet.pieces.closed() => return,
            }
        }
    });
    body
}

/// The state of the gateway each second, and what happens, for the dashboard.
pub(super) fn live(watcher: Watcher) -> Body {
    let (outlet, admin, mut after, body) = open(watcher);
    tokio::spawn(async move {
        let (mut known, mut stop) = (live::Known::default(), admin.state.stop.clone());
        let mut ticks = interval(PACE);
        // A client that was slow gets one state, not all that it has missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut told) = (admin.state.events.last(), Instant::now());
        let mut text = RETRY.to_owned();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // At once, but for bursts: those are one look.
                changed = last.changed(), if told.elapsed() > PACE / 10 => if changed.is_err() { return },
                _ = stop.changed() => return,
                () = outlet.pieces.closed() => return,
            }
            last.borrow_and_update();
            after = write_events(&mut text, &admin.state.events, after);
            let _ = write!(text, "event: state\ndata: {}\n\n", known.update(&admin.state));
            told = Instant::now();
            if !outlet.put(std::mem::take(&mut text)).await {
                return;
            }
        }
    });
    body
}

fn open(watcher: Watcher) -> (Outlet, Arc<Admin>, u64, Body) {
    let Watcher { admin, place, stalled, after } = watcher;
    let (pieces, taken) = mpsc::channel(PIECES);
    (Outlet { pieces, stalled, _place: place }, admin, after, Body::Stream(taken))
}

/// Writes what is newer than a number; the number of the last.
fn write_events(out: &mut String, events: &Events, after: u64) -> u64 {
    let (newer, missed) = events.since(after);
    if missed {
        let (kind, level, what) = (Kind::Gateway, Level::Warn, "missed");
        let text = "There were more events, which are not kept any more.";
        let event = json!({ "kind": kind, "level": level, "what": what, "subject": "events", "text": text });
        let _ = write!(out, "data: {event}\n\n");
    }
    for event in &newer {
        let Event { id, .. } = **event;
        let _ = write!(out, "id: {id}\ndata: {}\n\n", serde_json::to_string(event).unwrap_or_default());
    }
    newer.last().map_or(after, |event| event.id)
}
