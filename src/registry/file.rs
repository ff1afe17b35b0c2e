//! Services from a TOML file, read again whenever it changes.
//!
//! ```toml
//! [services.shop]
//! endpoints = [
//!     "127.0.0.1:3000",
//!     { address = "127.0.0.1:3001", weight = 3, zone = "a", scheme = "http", labels = { version = "2" } },
//! ]
//! ```

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::{fmt, fs, io};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::watch::Sender;
use toml::Spanned;

use super::{Endpoint, Scheme, Service, Services, State, Stats, View};
use crate::config::ServiceName;
use crate::config::document::Document;
use crate::config::mistakes::Mistakes;
use crate::watch::Watch;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenServices {
    services: BTreeMap<ServiceName, WrittenService>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenService {
    endpoints: Vec<Spanned<AddressOrTable>>,
}

/// An endpoint by its address alone, or with all that can be said of it.
struct AddressOrTable(WrittenEndpoint);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEndpoint {
    #[serde(deserialize_with = "address")]
    address: SocketAddr,
    #[serde(default = "one", deserialize_with = "weight")]
    weight: u16,
    #[serde(default)]
    zone: Arc<str>,
    #[serde(default)]
    scheme: Scheme,
    /// Ordered, and each name once, because TOML allows no other.
    #[serde(default)]
    labels: BTreeMap<Arc<str>, Arc<str>>,
}

fn one() -> u16 {
    1
}

// By hand: `untagged` would say "did not match any variant" at the whole value, for a mistake anywhere within.
impl<'de> Deserialize<'de> for AddressOrTable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = AddressOrTable;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an address like \"127.0.0.1:8080\" or a table like { address = \"127.0.0.1:8080\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AddressOrTable, E> {
                let address = parse_address(text).map_err(E::custom)?;
                let (zone, scheme, labels) = ("".into(), Scheme::default(), BTreeMap::new());
                Ok(AddressOrTable(WrittenEndpoint { address, weight: one(), zone, scheme, labels }))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AddressOrTable, A::Error> {
                WrittenEndpoint::deserialize(MapAccessDeserializer::new(map)).map(AddressOrTable)
            }
        }

        from.deserialize_any(Written)
    }
}

/// The address of an endpoint, with a port.
pub(crate) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    parse_address(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = |why: &str| Err(format!("{text:?} {why}"));
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => wrong("has port 0, which nobody can connect to"),
        Ok(address) => Ok(address),
        Err(_) if text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) => {
            wrong("names a host; write its IP address, as in 127.0.0.1:8080")
        }
        Err(_) => wrong("is not an address like 127.0.0.1:8080"),
    }
}

/// The weight of an endpoint.
pub(crate) fn weight<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let number = i64::deserialize(from)?;
    let wrong = |_| Error::custom(format!("{number} is not a number from 0 to 65535"));
    u16::try_from(number).map_err(wrong)
}

/// Reads a services file.
pub fn load(path: &Path) -> Result<Services, Mistakes> {
    let text = fs::read_to_string(path).map_err(|error| Mistakes::unreadable(path, &error))?;
    parse(&text, path)
}

/// The services that `text` tells of, were it in the file `path`.
pub fn parse(text: &str, path: &Path) -> Result<Services, Mistakes> {
    let mistakes = |all| Mistakes { file: path.to_owned(), all };
    let document = Document::parse(text).map_err(mistakes)?;
    let (written, mut all) = document.read::<WrittenServices>();
    if !all.is_empty() {
        // What was filled in for a missing address could be called a duplicate.
        return Err(mistakes(all));
    }
    let mut services = Services::new();
    for (name, service) in written.unwrap_or_default().services {
        let mut first: HashMap<SocketAddr, std::ops::Range<usize>> = HashMap::new();
        let mut endpoints = Vec::with_capacity(service.endpoints.len());
        for written in service.endpoints {
            let at = written.span();
            let AddressOrTable(WrittenEndpoint { address, weight, zone, scheme, labels }) = written.into_inner();
            if let Some(first) = first.get(&address) {
                let line = document.line(first);
                let at = document.value_of(&at, "address").unwrap_or(at);
                let twice = format!("\"{address}\" is an endpoint of this service already, on line {line}");
                all.push(document.mistake_at(&at, twice));
                continue;
            }
            first.insert(address, at);
            endpoints.push(Endpoint { address, scheme, weight, zone, labels: labels.into_iter().collect() });
        }
        endpoints.sort_by_key(|it| it.address);
        services.insert(name.0, Arc::new(Service { endpoints, ..Service::default() }));
    }
    if all.is_empty() { Ok(services) } else { Err(mistakes(all)) }
}

/// Publishes what the file says now and each time it says something else, until nobody listens any more. Whatever
/// happens to the file, the last good services stay.
pub async fn run(path: PathBuf, out: Sender<View>, stats: Arc<Stats>) {
    let mut watch = Watch::new(path.parent().unwrap_or(Path::new("")));
    let mut source = Source { path, seen: None, empty_before: false };
    loop {
        if let Some(read) = source.read() {
            publish(read, &out, &stats);
        }
        tokio::select! {
            () = watch.changed() => {}
            () = out.closed() => return,
        }
    }
}

/// The file, and what was last found there.
struct Source {
    path: PathBuf,
    /// An error by its kind: it is logged once, not each time it is looked at.
    seen: Option<Result<String, io::ErrorKind>>,
    /// Whether the last look found an empty file.
    empty_before: bool,
}

impl Source {
    /// The services, if the file changed since the last look; none if it is bad or missing, which is logged.
    fn read(&mut self) -> Option<Option<Services>> {
        let content = fs::read_to_string(&self.path);
        // A file that is written in place is empty for a moment. If it is empty again at the next look, it is meant.
        let empty = content.as_ref().is_ok_and(String::is_empty);
        let was_full = matches!(&self.seen, Some(Ok(text)) if !text.is_empty());
        if empty && was_full && !std::mem::replace(&mut self.empty_before, true) {
            return None;
        }
        self.empty_before = empty;
        let seen = content.as_ref().map(String::clone).map_err(io::Error::kind);
        if self.seen.as_ref() == Some(&seen) {
            return None;
        }
        self.seen = Some(seen);
        let path = self.path.display();
        Some(match content {
            Err(error) => {
                tracing::warn!(%error, file = %path, "reading services, waiting for the file");
                None
            }
            Ok(text) => match parse(&text, &self.path) {
                Ok(services) => Some(services),
                Err(mistakes) => {
                    tracing::error!("services file has mistakes, keeping what was read before\n{mistakes}");
                    None
                }
            },
        })
    }
}

/// Puts into the channel what differs from what is there.
fn publish(read: Option<Services>, out: &Sender<View>, stats: &Stats) {
    match &read {
        Some(_) => stats.full_reads.fetch_add(1, Relaxed),
        None => stats.bad_entries.fetch_add(1, Relaxed),
    };
    let changed = out.send_if_modified(|view| {
        let Some(mut services) = read else {
            // Nothing good was ever read: still starting.
            let stale = view.state == State::Live;
            view.state = if stale { State::Stale } else { view.state };
            return stale;
        };
        for (name, service) in &mut services {
            if let Some(old) = view.services.get(name).filter(|old| *old == service) {
                *service = old.clone();
            }
        }
        if view.state == State::Live && *view.services == services {
            return false;
        }
        *view = View { services: Arc::new(services), state: State::Live };
        true
    });
    if changed {
        stats.publishes.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;

    const TWO: &str = r#"
        [services.a]
        endpoints = [{ address = "127.0.0.1:2", weight = 3, labels = { v = "2", a = "1" } }, { address = "127.0.0.1:1" }]
        [services.b]
    "#;

    fn wrong(text: &str) -> String {
        let all = parse(text, Path::new("s.toml")).unwrap_err().all;
        all.iter().map(|it| format!("{}: {}\n", it.key, it.message)).collect()
    }

    #[test]
    fn endpoints_are_ordered_and_complete() {
        let services = parse(TWO, Path::new("s.toml")).unwrap();
        let a = &services["a"].endpoints;
        assert_eq!(a.iter().map(|it| (it.address.port(), it.weight)).collect::<Vec<_>>(), [(1, 1), (2, 3)]);
        assert_eq!(a[1].labels, [("a".into(), "1".into()), ("v".into(), "2".into())]);
        assert!(services["b"].endpoints.is_empty());
    }

    #[test]
    fn an_endpoint_may_be_its_address_alone() {
        let text = "[services.a]\nendpoints = [\"127.0.0.1:2\", { address = \"127.0.0.1:1\", weight = 3 }]";
        let services = parse(text, Path::new("s.toml")).unwrap();
        let table =
            "[services.a]\nendpoints = [{ address = \"127.0.0.1:2\" }, { address = \"127.0.0.1:1\", weight = 3 }]";
        assert_eq!(services, parse(table, Path::new("s.toml")).unwrap());
    }

    #[test]
    fn mistakes_name_their_key() {
        let text = r#"
            [services.a]
            endpoints = [{ address = "web:80", wieght = 1 }, { address = "127.0.0.1", weight = 70000, scheme = "spdy" }, {}]
            [services."b/c"]
            [service.d]
        "#;
        assert_eq!(
            wrong(text),
            "services.a.endpoints[0].address: \"web:80\" names a host; write its IP address, as in 127.0.0.1:8080\n\
             services.a.endpoints[0].wieght: unknown key \"wieght\"; did you mean \"weight\"?\n\
             services.a.endpoints[1].address: \"127.0.0.1\" is not an address like 127.0.0.1:8080\n\
             services.a.endpoints[1].weight: 70000 is not a number from 0 to 65535\n\
             services.a.endpoints[1].scheme: unknown value \"spdy\"; expected \"http\", \"https\", \"h2c\", \"h2\"\n\
             services.a.endpoints[2].address: missing key \"address\"\n\
             services.\"b/c\": \"b/c\" is not a service's name: at least one character, no \"/\"\n\
             service: unknown key \"service\"; did you mean \"services\"?\n"
        );
        assert_eq!(
            wrong("[services.a]\nendpoints = [\"web:80\", 7]"),
            "services.a.endpoints[0]: \"web:80\" names a host; write its IP address, as in 127.0.0.1:8080\n\
             services.a.endpoints[1]: expected an address like \"127.0.0.1:8080\" or a table like { address = \"127.0.0.1:8080\" }, found integer 7\n"
        );
        let twice = "[services.a]\nendpoints = [{ address = \"[::1]:1\" },\n{ address = \"[::1]:1\" }]";
        let expected =
            "services.a.endpoints[1].address: \"[::1]:1\" is an endpoint of this service already, on line 2\n";
        assert_eq!(wrong(twice), expected);
    }

    /// The next view that `wanted` accepts.
    async fn view(views: &mut watch::Receiver<View>, wanted: impl Fn(&View) -> bool) -> View {
        let found = timeout(Duration::from_secs(10), views.wait_for(wanted)).await.expect("no such view came");
        found.unwrap().clone()
    }

    #[tokio::test]
    async fn the_file_is_followed_and_the_last_good_state_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services.toml");
        let replace = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
        };
        let (out, mut views) = watch::channel(View::default());
        let stats = Arc::new(Stats::default());
        let task = tokio::spawn(run(path.clone(), out, stats.clone()));

        replace(TWO);
        let first = view(&mut views, |it| it.state == State::Live).await;
        replace("[services");
        let bad = view(&mut views, |it| it.state == State::Stale).await;
        assert!(Arc::ptr_eq(&first.services, &bad.services));
        replace(&format!("{TWO}\n[services.c]"));
        let third = view(&mut views, |it| it.services.len() == 3).await;
        assert_eq!(third.state, State::Live);
        assert!(Arc::ptr_eq(&first.services["a"], &third.services["a"]), "unchanged, so the same");
        fs::remove_file(&path).unwrap();
        let gone = view(&mut views, |it| it.state == State::Stale).await;
        assert_eq!(gone.services.len(), 3);
        fs::write(&path, "").unwrap();
        view(&mut views, |it| it.state == State::Live && it.services.is_empty()).await;
        assert_eq!(stats.publishes.load(Relaxed), 5);
        drop(views);
        timeout(Duration::from_secs(10), task).await.expect("the task ends with its readers").unwrap();
    }
}
