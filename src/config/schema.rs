//! The JSON Schema of `moongate.toml`, from the types that read it: what may be written, what is meant by it and what holds
//! where nothing is written. Editors check and complete with it; [`super::reference`] is made of it.
//!
//! It says what can be said of a value by itself. What the loader knows beyond that (whether a text is a time, whether two
//! keys contradict each other, whether there is such a plugin) `moongate check` tells.

use serde_json::{Map, Value, json};

use super::changes::is_read_at_start;
use super::upstream::{HealthCheck, Settings, Upstream};
use super::{Config, secret};

/// What is added to keys that are read at the start only.
pub(super) const AT_START: &str = "Takes effect at the next start.";

/// The schema, of the 2020-12 draft.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    schema["title"] = "Moongate's configuration, moongate.toml".into();
    // There everything may be left out, so that no type says what holds then.
    let with_check = Settings { health_check: Some(HealthCheck::default()), ..Settings::default() };
    let defaults = json!(Upstream::from(with_check));
    let tables = [
        ("Upstream", &defaults),
        ("SomeRetryBudget", &defaults["retry_budget"]),
        ("SomeOutlier", &defaults["outlier"]),
        ("SomeHealthCheck", &defaults["health_check"]),
    ];
    for (table, defaults) in tables {
        for (key, node) in schema["$defs"][table]["properties"].as_object_mut().into_iter().flatten() {
            node["default"] = match &defaults[key] {
                // Off unless it is asked for, with these.
                Value::Object(_) => Value::Null,
                default => default.clone(),
            };
        }
    }
    schema["properties"]["upstream"]["default"] = Value::Null;
    let original = schema.clone();
    visit(&mut schema, &original);
    let names: Vec<String> = schema["properties"].as_object().into_iter().flatten().map(|it| it.0.clone()).collect();
    for name in names {
        mark(&mut schema, &["properties".into(), name.clone()], &name, 0);
    }
    schema
}

/// Makes it one of TOML, whose values are never null, and its words those of somebody who has not read the source.
fn visit(value: &mut Value, schema: &Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|it| visit(it, schema)),
        Value::Object(table) => {
            settle(table);
            if let Some(Value::String(text)) = table.get_mut("description") {
                *text = plain(text, schema);
            }
            let inner = table.iter_mut().filter(|(key, _)| *key != "default" && *key != "const");
            inner.for_each(|(_, it)| visit(it, schema));
        }
        _ => {}
    }
}

fn settle(table: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = table.get_mut("type") {
        types.retain(|it| it != "null");
        if let [one] = &types[..] {
            let one = one.clone();
            table.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(choices)) = table.get_mut("enum") {
        choices.retain(|it| !it.is_null());
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = table.get_mut(key) {
            choices.retain(|it| it["type"] != "null");
            if choices.len() == 1
                && let Some(Value::Object(one)) = choices.pop()
            {
                table.remove(key);
                for (name, value) in one {
                    table.entry(name).or_insert(value);
                }
            }
        }
    }
    // How wide our numbers are is nobody's business; and sets are written as lists, twice or once.
    let format = table.get("format").and_then(Value::as_str).unwrap_or_default();
    if format.starts_with("uint") || format.starts_with("int") || format == "double" {
        table.remove("format");
    }
    if table.get("default").is_some_and(Value::is_null) {
        table.remove("default");
    }
    if let Some(default) = table.get_mut("default") {
        without_null(default);
    }
}

fn without_null(value: &mut Value) {
    if let Value::Object(all) = value {
        all.retain(|_, it| !it.is_null());
        all.values_mut().for_each(without_null);
    }
}

/// A doc comment as text: names without their brackets, and in place of "See …" what is said there.
fn plain(text: &str, schema: &Value) -> String {
    let elsewhere = text.strip_prefix("See [`").and_then(|it| it.strip_suffix("`]."));
    if let Some((owner, field)) = elsewhere.and_then(|it| it.split_once("::")) {
        let there = &schema["$defs"][owner]["properties"][field]["description"];
        if let Some(there) = there.as_str() {
            return plain(there, schema);
        }
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        let Some((name, after)) = link.split_once("`]") else { break };
        out += before;
        let name = name.rsplit("::").next().unwrap_or(name);
        out += &format!("`{name}`");
        rest = after;
    }
    out += rest;
    out.split('\n').map(str::trim).collect::<Vec<_>>().join(" ").replace("  ", "\n\n")
}

/// Adds to a key that it is read at the start only, and to those within it where it is not.
fn mark(schema: &mut Value, path: &[String], key: &str, depth: usize) {
    let at = |path: &[String]| format!("/{}", path.join("/"));
    let Some(node) = schema.pointer_mut(&at(path)) else { return };
    if is_read_at_start(key) {
        let said = node["description"].as_str().unwrap_or_default();
        node["description"] = format!("{said} {AT_START}").trim().into();
        return;
    }
    let within = match node["$ref"].as_str().and_then(|it| it.strip_prefix("#/")) {
        Some(reference) => reference.split('/').map(str::to_owned).collect(),
        None => path.to_vec(),
    };
    let properties = [within, vec!["properties".to_owned()]].concat();
    let names = schema.pointer(&at(&properties)).and_then(Value::as_object);
    let names: Vec<String> = names.into_iter().flatten().map(|it| it.0.clone()).collect();
    // Only tables that stand in one place, which are those near the top.
    for name in names.into_iter().filter(|_| depth < 1) {
        mark(schema, &[properties.clone(), vec![name.clone()]].concat(), &format!("{key}.{name}"), depth + 1);
    }
}

/// A default as it would be written.
pub(super) fn written(default: &Value) -> String {
    secret::lift(&super::changes::inline(default))
}
