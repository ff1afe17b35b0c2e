//! From a file to a [`Config`], or to every mistake in it.
//!
//! What a single value may be is in [`super::values`]; here are the checks that need more than one of them, and
//! the files that a configuration names. Nothing is opened but the file itself.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::document::Document;
use super::mistakes::{Mistake, Mistakes};
use super::plugins::AnyUse;
use super::upstream::Settings;
use super::{Config, Kind, Listener, Route, Source, Used};

/// Reads a configuration. Relative paths in it start at its own directory.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    whole(survey(path))
}

/// The same, but with what can be understood of a file that has mistakes.
pub fn survey(path: &Path) -> (Option<Config>, Mistakes) {
    match fs::read_to_string(path) {
        Ok(text) => read(&text, path),
        Err(error) => (None, Mistakes::unreadable(path, &error)),
    }
}

/// The configuration that `text` is, were it in the file `path`.
pub fn parse(text: &str, path: &Path) -> Result<Config, Mistakes> {
    whole(read(text, path))
}

fn whole((config, mistakes): (Option<Config>, Mistakes)) -> Result<Config, Mistakes> {
    config.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

fn read(text: &str, path: &Path) -> (Option<Config>, Mistakes) {
    let mistakes = |all| Mistakes { file: path.to_owned(), all };
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(all) => return (None, mistakes(all)),
    };
    let (config, mut all) = document.read::<Config>();
    let config = config.map(|mut config| {
        // The default is for those who say nothing of where to listen.
        if !config.listeners.is_empty() && document.find(&["listen"]).is_none() {
            config.listen.0.clear();
        }
        across(&config, &document, &mut all);
        resolve(&mut config, path.parent().unwrap_or(Path::new("")));
        take_texts(&mut config, &document, &mut all);
        super::admin::take_secrets(&mut config, &document, &mut all);
        config.source = Source { path: path.to_owned(), text: text.into() };
        config
    });
    (config, mistakes(all))
}

/// Asks `known` about every use of a plugin: its name, what it is used as, and its configuration as JSON. What it
/// says becomes a mistake at that use.
pub fn check_plugins(config: &Config, known: &dyn Fn(&str, Kind, &str) -> Result<(), String>) -> Mistakes {
    let document = Document::parse(&config.source.text).ok();
    let mut all = Vec::new();
    // Asking runs the plugin, and a thousand routes may use it in the same way.
    let mut answers = HashMap::new();
    for AnyUse { used: Used { plugin, config: json, at, .. }, kind } in config.uses() {
        let answer = answers.entry((&plugin.0, kind, json)).or_insert_with(|| known(&plugin.0, kind, json));
        let Err(message) = answer.clone() else { continue };
        all.push(match &document {
            Some(document) if !at.is_empty() => {
                // The name within a table, which may be long.
                let at = document.value_of(at, "plugin").unwrap_or_else(|| at.clone());
                document.mistake_at(&at, message)
            }
            _ => Mistake { place: None, key: "defaults.balancer".into(), message },
        });
    }
    all.sort_by_key(|it| it.place.as_ref().map(|it| (it.line, it.column)));
    // One that a canary has of the plugin in whose place it is stands at one place.
    all.dedup_by(|a, b| a.place.is_some() && a.place == b.place && a.message == b.message);
    Mistakes { file: config.source.path.clone(), all }
}

/// What is found wrong later with something that stands at this place of the configuration.
pub fn mistake_at(config: &Config, at: &Range<usize>, message: String) -> Mistake {
    match Document::parse(&config.source.text) {
        Ok(document) if !at.is_empty() => document.mistake_at(at, message),
        _ => Mistake { place: None, key: String::new(), message },
    }
}

/// What only two values together can have wrong. A route with a mistake of its own is left alone: what is left of
/// it would be compared, not what was meant.
fn across(config: &Config, document: &Document<'_>, all: &mut Vec<Mistake>) {
    let good = |route: &&toml::Spanned<Route>| {
        let key = document.key_at(&route.span());
        !all.iter().any(|it| it.key.strip_prefix(&key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let routes: Vec<_> = config.routes.iter().filter(good).collect();
    let mut found = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        if let Some(first) = routes[..number].iter().find(|it| matches_same(it.get_ref(), route.get_ref())) {
            let line = document.line(&first.span());
            let same = format!("path_prefix, host, methods and headers are those of the route on line {line}");
            found.push(document.mistake_at(&route.span(), same));
        }
    }
    if let Some(header_routes) = &config.header_routes {
        let at = document.find(&["header_routes"]).unwrap_or_default();
        let everything = |it: &Route| it.host.is_none() && it.methods.is_empty() && it.headers.is_empty();
        for route in routes.iter().filter(|it| everything(it.get_ref()) && it.get_ref().path_prefix == *header_routes) {
            let line = document.line(&at);
            let prefix = document.value_of(&route.span(), "path_prefix").unwrap_or_else(|| route.span());
            let same = format!("{:?} is taken by header_routes on line {line}", header_routes.as_str());
            found.push(document.mistake_at(&prefix, same));
        }
    }
    for (number, listener) in config.listeners.iter().enumerate() {
        let address = listener.get_ref().address;
        let same = |it: &&toml::Spanned<Listener>| it.get_ref().address == address;
        let first = match config.listeners[..number].iter().find(same) {
            Some(first) => Some(first.span()),
            None => document.find(&["listen"]).filter(|_| config.listen.0.contains(&address)),
        };
        if let Some(first) = first.filter(|_| address.port() != 0) {
            let at = document.value_of(&listener.span(), "address").unwrap_or_else(|| listener.span());
            let same = format!("\"{address}\" is listened on by line {} already", document.line(&first));
            found.push(document.mistake_at(&at, same));
        }
    }
    if let Some(zookeeper) = &config.registry.zookeeper
        && zookeeper.auth.is_some()
        && zookeeper.auth_file.is_some()
    {
        let at = document.find(&["registry", "zookeeper", "auth_file"]).unwrap_or_default();
        found.push(document.mistake_at(&at, "\"auth\" is there too, and only one of them can be meant".into()));
    }
    let services = config.services.keys().map(|name| (vec!["services", &*name.0], config.settings(name)));
    let all_services = (vec!["upstream"], config.upstream.over(Settings::default()));
    for (mut keys, settings) in std::iter::once(all_services).chain(services) {
        keys.push("outlier");
        let written = document.find(&keys).filter(|_| settings.outlier.eject > settings.outlier.max_eject);
        if let Some(at) = written {
            let [eject, most] = [settings.outlier.eject, settings.outlier.max_eject].map(humantime::format_duration);
            let at = ["eject", "max_eject"].iter().find_map(|key| document.value_of(&at, key)).unwrap_or(at);
            found.push(document.mistake_at(&at, format!("eject = \"{eject}\" is longer than max_eject = \"{most}\"")));
        }
    }
    all.append(&mut found);
    all.sort_by_key(|it| it.place.as_ref().map(|it| (it.line, it.column)));
}

fn matches_same(a: &Route, b: &Route) -> bool {
    let methods = |it: &Route| it.methods.iter().map(|it| it.0.to_string()).collect::<BTreeSet<_>>();
    a.path_prefix == b.path_prefix && a.host == b.host && a.headers == b.headers && methods(a) == methods(b)
}

/// Bytes of a text that a plugin is given from a file.
const TEXT: u64 = 1 << 20;

/// Puts the texts of files into the configurations of the plugins that want them.
fn take_texts(config: &mut Config, document: &Document<'_>, all: &mut Vec<Mistake>) {
    for used in config.uses_mut() {
        if used.files.is_empty() {
            continue;
        }
        let Ok(serde_json::Value::Object(mut table)) = serde_json::from_str(&used.config) else { continue };
        for (key, path) in &used.files {
            let text = text_of(path.get_ref()).and_then(|text| match table.contains_key(key) {
                true => Err(format!("\"config\" has a value for {key:?} too, and only one of them can be meant")),
                false => Ok(text),
            });
            match text {
                Ok(text) => drop(table.insert(key.clone(), text.into())),
                // What a canary has of the plugin in whose place it is was told there.
                Err(why) => {
                    let mistake = document.mistake_at(&path.span(), why);
                    if all.iter().all(|it| it.place != mistake.place) {
                        all.push(mistake);
                    }
                }
            }
        }
        used.config = serde_json::Value::Object(table).to_string().into();
    }
    all.sort_by_key(|it| it.place.as_ref().map(|it| (it.line, it.column)));
}

fn text_of(path: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("reading {}: {error}", path.display());
    let length = fs::metadata(path).map_err(told)?.len();
    if length > TEXT {
        return Err(format!("{} has {length} bytes; a plugin may be given {TEXT}", path.display()));
    }
    fs::read_to_string(path).map_err(told)
}

/// Makes relative paths start at `dir`.
fn resolve(config: &mut Config, dir: &Path) {
    // `join` leaves an absolute path as it is.
    let resolve = |path: &mut PathBuf| *path = dir.join(&*path);
    resolve(&mut config.plugins.dir);
    config.plugins.cache.as_mut().map(resolve);
    if let Some(fetch) = &mut config.plugins.fetch {
        resolve(&mut fetch.dir);
        fetch.ca.iter_mut().for_each(|ca| resolve(ca.get_mut()));
    }
    for used in config.uses_mut() {
        used.files.iter_mut().for_each(|(_, path)| resolve(path.get_mut()));
    }
    config.handover.as_mut().map(resolve);
    config.admin_token_file.as_mut().map(resolve);
    config.explain.as_mut().and_then(|it| it.secret_file.as_mut()).map(resolve);
    config.access_log.iter_mut().for_each(|log| log.resolve(dir));
    let upstreams = config.services.values_mut().chain([&mut config.upstream]);
    upstreams.filter_map(|it| it.tls.as_mut()).for_each(|it| it.resolve(dir));
    for listener in &mut config.listeners {
        if let Some(tls) = &mut listener.get_mut().tls {
            tls.resolve(dir);
        }
    }
    if let Some(file) = &mut config.registry.file {
        resolve(&mut file.path);
    }
    if let Some(zookeeper) = &mut config.registry.zookeeper {
        zookeeper.snapshot.as_mut().map(resolve);
        zookeeper.auth_file.as_mut().map(resolve);
        zookeeper.tls.iter_mut().for_each(|tls| tls.resolve(dir));
    }
}
