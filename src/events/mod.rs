//! What has happened lately, for people who ask why: a bounded list of events in memory, each with a number that only
//! grows. The control side writes it; workers never do. What the events of two snapshots are is found in [`mod@found`].

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

pub mod found;

/// Events that are kept. At 300 bytes each they take a third of a megabyte, and a day of a quiet gateway fits.
pub const KEPT: usize = 1_000;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A registry as a whole: read, out of reach, back.
    Registry,
    /// A service's endpoints came, went or changed.
    Service,
    /// An endpoint is left out, or is back.
    Health,
    /// A plugin's version: loaded, swapped, refused, quarantined.
    Plugin,
    /// A configuration was taken or refused.
    Config,
    /// The gateway itself.
    Gateway,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Info,
    /// Something is worse than it was.
    Warn,
    /// Somebody has to do something.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its number. It begins with the second in which the process started, so that it grows from one to the next, too.
    pub id: u64,
    /// When, as RFC 3339 has it.
    pub time: String,
    /// What it is about.
    pub kind: Kind,
    /// How much it matters.
    pub level: Level,
    /// What happened, in one word: `swapped`, `ejected`. With `kind` it is all that a program needs.
    pub what: &'static str,
    /// The plugin, service, endpoint or registry.
    pub subject: String,
    /// What happened, in a sentence.
    pub text: String,
    /// Figures and names that belong to it.
    pub fields: Map<String, Value>,
}

/// An event that is not in the list yet.
#[derive(Clone, Debug)]
pub struct News {
    /// See [`Event::kind`].
    pub kind: Kind,
    /// See [`Event::level`].
    pub level: Level,
    /// See [`Event::what`].
    pub what: &'static str,
    /// See [`Event::subject`].
    pub subject: String,
    /// See [`Event::text`].
    pub text: String,
    /// See [`Event::fields`]; an object, or null for none.
    pub fields: Value,
}

/// The list.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<Kept>,
    /// The number of the last event, for those who wait.
    last: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    next: u64,
    events: VecDeque<Arc<Event>>,
    /// When the latest event of a registry was, by its name: there are two at the most.
    registries: Vec<(String, SystemTime)>,
}

impl Default for Events {
    fn default() -> Events {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        // A number that JavaScript can still tell from the next: 2^53 is a good five times as much.
        let next = started * 1_000_000 + 1;
        Events {
            kept: Mutex::new(Kept { next, events: VecDeque::new(), registries: Vec::new() }),
            last: watch::Sender::new(next - 1),
        }
    }
}

impl Events {
    /// Adds an event; the oldest goes if there is no room.
    pub fn tell(&self, news: News) {
        let News { kind, level, what, subject, text, fields } = news;
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        let now = SystemTime::now();
        let time = humantime::format_rfc3339_millis(now).to_string();
        let mut kept = self.lock();
        if kind == Kind::Registry {
            kept.registries.retain(|(name, _)| *name != subject);
            kept.registries.push((subject.clone(), now));
        }
        let id = kept.next;
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(Arc::new(Event { id, time, kind, level, what, subject, text, fields }));
        drop(kept);
        self.last.send_replace(id);
    }

    /// All that are newer than the one of this number, the oldest first; and whether there were more, which are kept no
    /// longer.
    pub fn since(&self, id: u64) -> (Vec<Arc<Event>>, bool) {
        let kept = self.lock();
        let newer = kept.events.iter().filter(|event| event.id > id).cloned().collect();
        // Whoever has seen none of this process has missed none.
        let first_ever = self.began();
        let oldest = kept.events.front().map_or(kept.next, |event| event.id);
        (newer, id >= first_ever && id + 1 < oldest || id < first_ever && oldest > first_ever)
    }

    /// When the latest event of a registry was.
    pub fn registry_changed(&self, name: &str) -> Option<SystemTime> {
        self.lock().registries.iter().find(|(known, _)| known == name).map(|(_, at)| *at)
    }

    /// Changes with each event.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The number of the first event of this process.
    fn began(&self) -> u64 {
        *self.last.borrow() / 1_000_000 * 1_000_000 + 1
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(text: String) -> News {
        let (kind, level, what, subject) = (Kind::Gateway, Level::Info, "counted", String::new());
        News { kind, level, what, subject, text, fields: Value::Null }
    }

    #[test]
    fn the_latest_are_kept_and_what_was_missed_is_said() {
        let events = Events::default();
        assert!(events.since(0).0.is_empty() && !events.since(0).1);
        (0..KEPT + 10).for_each(|number| events.tell(news(number.to_string())));
        let (all, missed) = events.since(0);
        assert!(all.len() == KEPT && missed);
        assert_eq!((&*all[0].text, &*all[KEPT - 1].text), ("10", "1009"));
        assert!(all.windows(2).all(|pair| pair[0].id + 1 == pair[1].id));
        let last = all[KEPT - 1].id;
        assert_eq!(*events.last().borrow(), last);
        let (newer, missed) = events.since(last - 3);
        assert!(newer.len() == 3 && !missed);
        assert!(events.since(last).0.is_empty() && !events.since(last).1);
        assert!(events.since(all[0].id - 2).1, "one between is gone");
        assert!(!events.since(all[0].id - 1).1);
        assert!(last < 1 << 53);
    }
}
