//! What is different between two configurations, for the log: key by key, with what was there before and is there now.
//!
//! Compared is what the gateway goes by and not what the file says, so that a default written out is no change.

use serde_json::{Map, Value};

use super::{Config, secret, upstream};

/// The keys, or beginnings of keys, that are read at the start only.
pub const AT_START: [&str; 23] = [
    "access_log",
    "admin",
    "admin_token",
    "admin_token_file",
    "drain",
    "handover",
    "listen",
    "listeners",
    "log.format",
    "metrics",
    "plugins.cache",
    "plugins.call_timeout",
    "plugins.capabilities",
    "plugins.dir",
    "plugins.fetch",
    "plugins.memory_limit",
    "registry",
    "tracing.endpoint",
    "tracing.parents",
    "tracing.service",
    "tracing.timeout",
    "workers",
    "zone",
];

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which key, as `limits.http2.streams`; routes by what they match, as `routes[/shop]`.
    pub key: String,
    /// What was there, as TOML, with secrets veiled; none: nothing was.
    pub before: Option<String>,
    /// What is there now; none: nothing is.
    pub after: Option<String>,
}

impl Change {
    /// Whether it takes effect at the next start only.
    pub fn waits(&self) -> bool {
        is_read_at_start(&self.key)
    }
}

/// Whether this key is one that is read at the start only.
pub fn is_read_at_start(key: &str) -> bool {
    AT_START.iter().any(|it| key.strip_prefix(it).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
        // A table that is written at last, or no more, has all of its keys.
        || key == "tracing"
}

/// All differences, by key.
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut all = Vec::new();
    compare("", &before.told(), &after.told(), &mut all);
    texts(before, after, &mut all);
    all
}

impl Config {
    /// With what is left out of `[upstream]` written out, as the gateway goes by it.
    pub fn effective(&self) -> Config {
        let all = self.upstream.over(upstream::Settings::default());
        let upstream = upstream::Upstream { tls: self.upstream.tls.clone(), ..all.into() };
        Config { upstream, ..self.clone() }
    }

    /// All of it as a tree. Secrets are only told apart.
    fn told(&self) -> Value {
        // Every key is a string, and numbers are whole or finite.
        let mut all = serde_json::to_value(self.effective()).unwrap_or_default();
        // Told one by one, also where there was none before.
        for (list, name) in [("routes", route as fn(&Value) -> String), ("listeners", listener)] {
            let each = all.get_mut(list).map(Value::take);
            all[list] = named(each.and_then(|it| it.as_array().cloned()).unwrap_or_default(), name);
        }
        if all.get("services").is_none() {
            all["services"] = Value::Object(Map::new());
        }
        all
    }
}

/// A list as a table, so that its elements are compared with those that mean the same, wherever they stand.
fn named(all: Vec<Value>, name: fn(&Value) -> String) -> Value {
    let mut table = Map::new();
    for value in all {
        let name = name(&value);
        let mut key = format!("[{name}]");
        while table.contains_key(&key) {
            key.insert(key.len() - 1, '\'');
        }
        table.insert(key, value);
    }
    Value::Object(table)
}

/// What a route matches, which no two have alike.
fn route(route: &Value) -> String {
    let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
    let mut name = text("host") + &text("path_prefix");
    for method in route["methods"].as_array().into_iter().flatten() {
        name += &format!(" {}", method.as_str().unwrap_or_default());
    }
    for (header, value) in route["headers"].as_object().into_iter().flatten() {
        name += &format!(" {header}={}", value.as_str().unwrap_or_default());
    }
    name
}

fn listener(listener: &Value) -> String {
    listener["address"].as_str().unwrap_or_default().to_owned()
}

fn compare(key: &str, before: &Value, after: &Value, all: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let [old, new] = [old, new].map(|it| it.get(name).unwrap_or(&Value::Null));
                compare(&beneath(key, name), old, new, all);
            }
        }
        _ if before == after => {}
        _ => {
            let written = |it: &Value| (!it.is_null()).then(|| secret::lift(&inline(it)));
            all.push(Change { key: key.to_owned(), before: written(before), after: written(after) });
        }
    }
}

/// The key of something in a table.
fn beneath(key: &str, name: &str) -> String {
    match key {
        "" => quoted(name),
        _ if name.starts_with('[') => format!("{key}{name}"),
        _ => format!("{key}.{}", quoted(name)),
    }
}

fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_'));
    if bare { name.to_owned() } else { format!("{name:?}") }
}

/// A value on one line, as TOML has it.
pub(super) fn inline(value: &Value) -> String {
    match value {
        Value::Object(all) => {
            let all = all.iter().filter(|(_, value)| !value.is_null());
            let all: Vec<String> = all.map(|(key, value)| format!("{} = {}", quoted(key), inline(value))).collect();
            if all.is_empty() { "{ }".to_owned() } else { format!("{{ {} }}", all.join(", ")) }
        }
        Value::Array(all) => format!("[{}]", all.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The files whose texts have changed. What they say may be secret, and is not told.
fn texts(before: &Config, after: &Config, all: &mut Vec<Change>) {
    for now in after.uses().iter().map(|it| it.used) {
        let then =
            before.uses().into_iter().map(|it| it.used).find(|it| it.plugin == now.plugin && it.files == now.files);
        let Some(then) = then.filter(|it| !it.files.is_empty() && it.config != now.config && it.shown() == now.shown())
        else {
            continue;
        };
        let text = |config: &str, key: &str| serde_json::from_str::<Value>(config).ok()?.get(key).cloned();
        for (key, path) in &now.files {
            let change =
                Change { key: path.get_ref().display().to_string(), before: None, after: Some("(a new text)".into()) };
            if text(&then.config, key) != text(&now.config, key) && !all.contains(&change) {
                all.push(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::file::parse;

    fn differences(before: &str, after: &str) -> Vec<String> {
        let read = |text| parse(text, Path::new("it.toml")).unwrap();
        let told = |it: Option<String>| it.unwrap_or("-".into());
        let all = changes(&read(before), &read(after)).into_iter();
        all.map(|it| {
            let wait = if it.waits() { " *" } else { "" };
            format!("{}: {} -> {}{wait}", it.key, told(it.before), told(it.after))
        })
        .collect()
    }

    #[test]
    fn what_was_changed_is_told_and_nothing_else() {
        let nothing = differences("", "forwarded = false\n[upstream]\nmax_requests = 4096");
        assert_eq!(nothing, [""; 0]);
        let before = "workers = 1\n[limits.http2]\nstreams = 50\n[services.\"a.b\"]\nmax_requests = 1\n";
        let after = "workers = 2\n[limits]\nidle_timeout = '90s'\n[upstream]\nhealth_check = true\n";
        let all = differences(before, after);
        for wanted in [
            "limits.http2.streams: 50 -> 100",
            "limits.idle_timeout: \"1m\" -> \"1m 30s\"",
            "services.\"a.b\": { max_requests = 1 } -> -",
            "workers: 1 -> 2 *",
        ] {
            assert!(all.iter().any(|it| it == wanted), "{wanted} is not in {all:#?}");
        }
        assert!(all.iter().any(|it| it.starts_with("upstream.health_check: false -> { grpc = false, ")), "{all:#?}");
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn routes_are_told_by_what_they_match() {
        let route = |prefix: &str, more: &str| format!("[[routes]]\npath_prefix = '{prefix}'\nservice = 's'\n{more}\n");
        let before = route("/a", "") + &route("/b", "retries = 1") + &route("/c", "methods = ['GET']");
        let after = route("/new", "") + &route("/b", "retries = 3\nfilters = ['cors']") + &route("/a", "");
        assert_eq!(
            differences(&before, &after),
            [
                "routes[/b].filters: - -> [\"cors\"]",
                "routes[/b].retries: 1 -> 3",
                "routes[/c GET]: { methods = [\"GET\"], path_prefix = \"/c\", service = \"s\" } -> -",
                "routes[/new]: - -> { path_prefix = \"/new\", service = \"s\" }",
            ]
        );
    }

    #[test]
    fn secrets_are_not_told_but_that_they_were_changed_is() {
        let zookeeper = |auth: &str| format!("[registry.zookeeper]\nauth = 'digest:me:{auth}'\n");
        let told = differences(&zookeeper("one"), &zookeeper("two"));
        assert_eq!(told, ["registry.zookeeper.auth: \"(secret)\" -> \"(secret)\" *"]);
        assert_eq!(differences(&zookeeper("one"), &zookeeper("one")), [""; 0]);
        let plugin =
            |key: &str| format!("filters = [{{ plugin = 'key-auth', config = {{ keys = {{ a = '{key}' }} }} }}]");
        let told = differences(&plugin("one"), &plugin("two")).join("\n");
        assert!(told.starts_with("filters: ") && told.contains("(secret)"), "{told}");
        assert!(!told.contains("one") && !told.contains("two"), "{told}");
    }
}
