//! What the gateway says of itself, on standard error: started once, and louder or quieter at any time. Lines of requests are
//! in [`crate::access`].

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, registry, reload};

use crate::config;
use crate::config::access::Format;
use crate::config::log::Level;

/// How loud it is, and how that is changed.
struct Volume {
    handle: reload::Handle<Targets, Registry>,
    level: Mutex<Level>,
}

static VOLUME: OnceLock<Volume> = OnceLock::new();

/// Begins to log. To be called once, before anything is to be logged.
pub fn start(config: &config::Log) {
    let (filter, handle) = reload::Layer::new(targets(&config.level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(is_coloured());
    let lines = match config.format {
        Format::Text => lines.boxed(),
        Format::Json => lines.event_format(Json).boxed(),
    };
    registry().with(filter).with(lines).init();
    let _ = VOLUME.set(Volume { handle, level: Mutex::new(config.level.clone()) });
}

/// How much is said; what the default is if nothing was started.
pub fn level() -> Level {
    let level = |it: &Volume| it.level.lock().unwrap_or_else(PoisonError::into_inner).clone();
    VOLUME.get().map(level).unwrap_or_default()
}

/// From now on so much is said.
pub fn set_level(level: &Level) {
    let Some(volume) = VOLUME.get() else { return };
    let mut known = volume.level.lock().unwrap_or_else(PoisonError::into_inner);
    // It can only fail when the subscriber is gone, and then nothing is said any more.
    let _ = volume.handle.reload(targets(level));
    *known = level.clone();
}

/// Whether colours are wanted: on a terminal, unless somebody says no (<https://no-color.org>).
pub fn is_coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty())
}

/// An object for each event, with the names that the access log has.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        writeln!(out, "{}", line(event))
    }
}

/// The event as JSON, its time and words before its fields.
fn line(event: &Event<'_>) -> String {
    let mut fields = Fields(Map::new());
    event.record(&mut fields);
    let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let level = event.metadata().level().as_str().to_ascii_lowercase();
    let message = fields.0.remove("message").unwrap_or_else(|| "".into());
    let first = [("time", time.into()), ("level", level.into()), ("target", event.metadata().target().into())];
    let all =
        first.into_iter().chain([("message", message)]).map(|(key, value)| (key.to_owned(), value)).chain(fields.0);
    let pairs: Vec<String> = all.map(|(key, value)| format!("{}:{value}", Value::from(key))).collect();
    format!("{{{}}}", pairs.join(","))
}

/// The fields of an event; what is no number and no truth value is a text.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        // A field may have the name of one that every line has.
        let name = match field.name() {
            name @ ("time" | "level" | "target") => format!("field_{name}"),
            name => name.to_owned(),
        };
        self.0.insert(name, value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

fn targets(level: &Level) -> Targets {
    // A level was checked where it was read.
    let targets: Targets = level.0.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    match level.0.contains("h2=") {
        true => targets,
        // It warns of what strangers send, which would let them fill the log; what matters of it we say ourselves.
        false => targets.with_target("h2", LevelFilter::ERROR),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level as Is;

    use super::*;

    #[test]
    fn every_level_that_is_taken_means_something() {
        let would = |text: &str, target: &str, level: &Is| {
            let level_taken: Level = text.parse().unwrap();
            targets(&level_taken).would_enable(target, level)
        };
        assert!(would("info", "moongate::proxy", &Is::INFO) && !would("info", "moongate::proxy", &Is::DEBUG));
        assert!(would("WARN, moongate::registry=debug", "moongate::registry::file", &Is::DEBUG));
        assert!(!would("WARN, moongate::registry=debug", "moongate::proxy", &Is::INFO));
        assert!(!would("off", "moongate", &Is::ERROR));
        assert!(!would("trace", "h2::proto", &Is::WARN) && would("info,h2=trace", "h2::proto", &Is::TRACE));
        for bad in ["", "inof", "info,", "a=b=info", "moongate=loud", "moongate[span]=info", "3"] {
            assert!(bad.parse::<Level>().is_err(), "{bad}");
        }
        assert!("inof".parse::<Level>().unwrap_err().contains("did you mean \"info\"?"));
    }
}
