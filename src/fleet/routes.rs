//! Routes from ZooKeeper: one in each znode, held to the rules of the configuration file, and the last good one kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::kept::Kept;
use crate::config::file::check_plugins;
use crate::config::mistakes::{Mistake, Mistakes};
use crate::config::{Config, Kind, Route, remote};
use crate::registry::State;
use crate::registry::zookeeper::texts::{Text, Texts};

/// Says whether there is a plugin of this name and kind, and whether it accepts this configuration.
type Known<'a> = dyn Fn(&str, Kind, &str) -> Result<(), String> + 'a;

/// What became of the znodes, as the publisher asks it.
pub struct Routes {
    /// The znode that they are below.
    root: String,
    texts: watch::Receiver<Texts>,
    entries: BTreeMap<Arc<str>, Entry>,
    /// The good ones, to be kept on disk.
    kept: watch::Sender<Kept>,
}

#[derive(Default)]
struct Entry {
    /// What was looked at last.
    text: Option<Text>,
    /// The last good one, as a configuration with this one route.
    good: Option<Arc<Config>>,
    refused: Option<Refused>,
}

/// A text that cannot serve.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why, with the znode's path, line, column and key.
    pub reason: String,
    /// Since when.
    pub at: SystemTime,
}

/// What became of a znode.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its path.
    pub znode: String,
    /// Its route's place among the explicit ones; none: it never had a good one.
    pub place: Option<usize>,
    /// Whose equal route comes before this one, so that no request finds it.
    pub hidden_by: Option<String>,
    /// Why what it says now does not serve.
    pub refused: Option<Refused>,
}

impl Routes {
    /// Those below this znode; what `kept` shows at first is believed for the time being.
    pub fn new(root: &str, texts: watch::Receiver<Texts>, kept: watch::Sender<Kept>) -> Routes {
        let mut routes = Routes { root: root.trim_end_matches('/').to_owned(), texts, entries: BTreeMap::new(), kept };
        let kept = routes.kept.borrow().clone();
        for (name, text) in kept.iter() {
            // It was good when it was kept; a newer gateway may think otherwise of it.
            if let Ok(config) = remote::route(text, &routes.znode(name), None) {
                let entry = Entry { text: Some(Ok(text.clone())), good: Some(Arc::new(config)), refused: None };
                routes.entries.insert(name.clone(), entry);
            }
        }
        routes
    }

    /// Completes when there may be something to [`Self::take`].
    pub fn changed(&self) -> watch::Receiver<Texts> {
        self.texts.clone()
    }

    /// How far they can be trusted.
    pub fn state(&self) -> State {
        match self.texts.borrow().state {
            // What was kept is what it is for.
            State::Starting if !self.entries.is_empty() => State::Stale,
            state => state,
        }
    }

    /// Takes in what the znodes say now; whether there are other routes than before. `all`: also what was refused before,
    /// because plugins or the configuration have changed.
    pub fn take(&mut self, config: &Config, known: &Known<'_>, all: bool) -> bool {
        let texts = self.texts.borrow_and_update().clone();
        if texts.state == State::Starting {
            return false;
        }
        let before = self.entries.len();
        self.entries.retain(|name, _| texts.all.contains_key(name));
        let mut changed = self.entries.len() != before;
        for (name, text) in texts.all.iter() {
            let znode = self.znode(name);
            let entry = self.entries.entry(name.clone()).or_default();
            if entry.text.as_ref() == Some(text) && !(all && entry.refused.is_some()) {
                continue;
            }
            entry.text = Some(text.clone());
            match good(text, &znode, config, known) {
                Ok(route) => {
                    tracing::info!(znode, "route loaded");
                    (entry.good, entry.refused) = (Some(Arc::new(route)), None);
                    changed = true;
                }
                Err(mistakes) => {
                    let reason = mistakes.to_string();
                    if entry.refused.as_ref().is_none_or(|it| it.reason != reason) {
                        let stays =
                            if entry.good.is_some() { "the one before stays" } else { "there is none in its place" };
                        tracing::error!("route refused, {stays}:\n{reason}");
                        entry.refused = Some(Refused { reason, at: SystemTime::now() });
                    }
                }
            }
        }
        if changed {
            let text = |config: &Arc<Config>| config.source.text.clone();
            let kept = self.entries.iter().filter_map(|(name, entry)| Some((name.clone(), text(entry.good.as_ref()?))));
            self.kept.send_replace(Arc::new(kept.collect()));
        }
        changed
    }

    /// The routes that serve, by the names of their znodes.
    pub fn serving(&self) -> impl Iterator<Item = &Route> {
        self.entries.values().filter_map(|entry| Some(entry.good.as_ref()?.routes.first()?.get_ref()))
    }

    /// What became of each, where the routes of this configuration stand before them.
    pub fn status(&self, config: &Config) -> Vec<Status> {
        let mut first = BTreeMap::new();
        for route in &config.routes {
            first.entry(matches(route.get_ref())).or_insert_with(|| "the configuration file".to_owned());
        }
        let mut place = config.routes.len();
        let status = self.entries.iter().map(|(name, entry)| {
            let znode = self.znode(name);
            let mut status = Status { znode, place: None, hidden_by: None, refused: entry.refused.clone() };
            if let Some(route) = entry.good.as_ref().and_then(|it| it.routes.first()) {
                status.place = Some(place);
                place += 1;
                let key = matches(route.get_ref());
                match first.get(&key) {
                    Some(before) => status.hidden_by = Some(before.clone()),
                    None => drop(first.insert(key, status.znode.clone())),
                }
            }
            status
        });
        status.collect()
    }

    fn znode(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }
}

/// What a route matches: of two with the same, the first takes all.
fn matches(route: &Route) -> String {
    let mut methods: Vec<&str> = route.methods.iter().map(|it| it.0.as_str()).collect();
    methods.sort_unstable();
    methods.dedup();
    format!("{:?} {:?} {methods:?} {:?}", route.host, route.path_prefix, route.headers)
}

fn good(text: &Text, znode: &str, config: &Config, known: &Known<'_>) -> Result<Config, Mistakes> {
    let mistakes = |all: Vec<Mistake>| Mistakes { file: znode.into(), all };
    let text = text
        .as_ref()
        .map_err(|why| mistakes(vec![Mistake { place: None, key: String::new(), message: (*why).to_owned() }]))?;
    let found = remote::route(text, znode, config.header_routes.as_ref())?;
    let told = check_plugins(&found, known);
    if told.is_empty() { Ok(found) } else { Err(told) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Case {
        texts: watch::Sender<Texts>,
        routes: Routes,
        config: Config,
    }

    impl Case {
        fn new(kept: &[(&str, &str)], config: &str) -> Case {
            let kept = kept.iter().map(|(name, text)| (Arc::from(*name), Arc::from(*text))).collect();
            let (texts, seen) = watch::channel(Texts::default());
            let routes = Routes::new("/r", seen, watch::Sender::new(Arc::new(kept)));
            let config = crate::config::file::parse(config, "moongate.toml".as_ref()).unwrap();
            Case { texts, routes, config }
        }

        fn says(&mut self, texts: &[(&str, &str)]) -> bool {
            let all = texts.iter().map(|(name, text)| (Arc::from(*name), Ok(Arc::from(*text)))).collect();
            self.texts.send_replace(Texts { all: Arc::new(all), state: State::Live });
            self.look(false)
        }

        fn look(&mut self, all: bool) -> bool {
            let known =
                |plugin: &str, _, _: &str| if plugin == "no" { Err("there is no such plugin".into()) } else { Ok(()) };
            self.routes.take(&self.config, &known, all)
        }

        fn prefixes(&self) -> Vec<&str> {
            self.routes.serving().map(|route| route.path_prefix.as_str()).collect()
        }

        fn refused(&self) -> Vec<String> {
            let refused = |it: Status| Some(it.refused?.reason.lines().next()?.to_owned());
            self.routes.status(&self.config).into_iter().filter_map(refused).collect()
        }
    }

    const A: &str = "path_prefix = '/a'\nservice = 'a'";
    const B: &str = "{\"path_prefix\": \"/b\", \"service\": \"b\"}";

    #[test]
    fn the_last_good_one_stays_until_its_znode_goes() {
        let mut case = Case::new(&[], "");
        assert!(case.says(&[("x", A), ("y", B)]));
        assert_eq!(case.prefixes(), ["/a", "/b"]);
        assert!(!case.says(&[("x", "path_prefix = 'a'\nservice = 'a'"), ("y", B)]));
        assert_eq!(case.prefixes(), ["/a", "/b"]);
        assert_eq!(case.refused(), ["/r/x:1:15: path_prefix: \"a\" does not start with \"/\""]);
        let plugin = "path_prefix = '/c'\nservice = 'a'\nbalancer = { plugin = 'no' }";
        assert!(!case.says(&[("x", plugin), ("y", B)]));
        assert_eq!(case.refused(), ["/r/x:3:23: balancer.plugin: there is no such plugin"]);
        assert_eq!(case.routes.kept.borrow()["x"].as_ref(), A, "what is kept is what serves");
        assert!(case.says(&[("y", B)]));
        assert_eq!((case.prefixes(), case.refused()), (vec!["/b"], vec![]));
    }

    #[test]
    fn what_was_kept_serves_until_zookeeper_was_read() {
        let mut case = Case::new(&[("x", A), ("z", "nonsense")], "");
        assert_eq!((case.prefixes(), case.routes.state()), (vec!["/a"], State::Stale));
        assert!(!case.look(true));
        assert!(!case.says(&[("x", "bad")]), "and is the last good one then");
        assert_eq!(case.prefixes(), ["/a"]);
        assert!(case.says(&[]));
        assert_eq!(case.prefixes(), [""; 0]);
    }

    #[test]
    fn the_first_of_two_that_match_the_same_hides_the_other() {
        let mut case = Case::new(&[], "header_routes = '/h'\n[[routes]]\npath_prefix = '/a'\nservice = 'f'");
        case.says(&[("x", A), ("y", B), ("z", B), ("h", "path_prefix = '/h'\nservice = 's'")]);
        let status = case.routes.status(&case.config);
        let told: Vec<_> = status.iter().map(|it| (it.znode.as_str(), it.place, it.hidden_by.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("/r/h", None, None),
                ("/r/x", Some(1), Some("the configuration file")),
                ("/r/y", Some(2), None),
                ("/r/z", Some(3), Some("/r/y")),
            ]
        );
        assert_eq!(case.refused(), ["/r/h:1:15: path_prefix: \"/h\" is taken by header_routes"]);
    }

    #[test]
    fn what_was_refused_is_looked_at_again() {
        let mut case = Case::new(&[], "header_routes = '/a'");
        assert!(!case.says(&[("x", A)]));
        case.config.header_routes = None;
        assert!(!case.look(false) && case.look(true));
        assert_eq!((case.prefixes(), case.refused()), (vec!["/a"], vec![]));
    }
}
