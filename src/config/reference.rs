//! `docs/config.md`: every key of the configuration for people, made of the schema. A test keeps the file true.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::schema::{AT_START, schema, written};

const INTRODUCTION: &str = "# Every key of moongate.toml

Made by `moongate config --reference` of the types that read the file. `moongate config --schema` is the same as a JSON
Schema, for editors; `moongate config --print` tells what holds here and now, and where each value is from.

Times are written like `\"250ms\"` or `\"1m 30s\"`, at most a year and more than zero where nothing else is said; sizes like
`\"64MiB\"` or as a number of bytes. Relative paths start at the file's directory. Unknown keys and bad values are errors
with line and column.

The file is read again when it changes, and on `SIGHUP`. The log then tells each key that was changed; those marked with a
star (*) take effect at the next start, the others at once. A bad file changes nothing.
";

/// Tables that have a section of their own wherever they are used.
const SECTIONS: [(&str, &str, &str); 3] = [
    ("Balancer", "A balancer", "Wherever a balancer is chosen there is its name, or a table with these keys."),
    ("Filter", "A filter", "Wherever a filter is chosen there is its name, or a table with these keys."),
    ("Name", "A shadow", "A name, or a table with these keys."),
];

/// The whole text.
pub fn reference() -> String {
    let schema = schema();
    let mut out = INTRODUCTION.to_owned();
    let none = Map::new();
    let top = schema["properties"].as_object().unwrap_or(&none);
    let (tables, keys): (Vec<_>, Vec<_>) = top.iter().partition(|(_, it)| is_section(it, &schema));
    section(&mut out, "Top level", "");
    for (key, node) in keys {
        row(&mut out, key, key, node, &schema, false);
    }
    for (key, node) in tables {
        let description = text(node, "description");
        let inner = resolve(node, &schema);
        if let Some(values) = inner.get("additionalProperties").filter(|it| it.is_object()) {
            let same = text(values, "$ref").rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
            section(&mut out, &format!("[{key}.NAME]"), description);
            out.truncate(out.len() - HEADER.len());
            let _ = writeln!(out, "The keys are those of `[{same}]`; what is left out is as there.");
        } else if let Some(items) = inner.get("items") {
            section(&mut out, &format!("[[{key}]]"), description);
            rows(&mut out, key, "", resolve(items, &schema), &schema);
        } else {
            section(&mut out, &format!("[{key}]"), description);
            rows(&mut out, key, "", inner, &schema);
        }
    }
    for (name, title, words) in SECTIONS {
        section(&mut out, title, words);
        rows(&mut out, "(nowhere)", "", table_of(&schema["$defs"][name], &schema), &schema);
    }
    out
}

const HEADER: &str = "| Key | Value | Default | Meaning |\n|---|---|---|---|\n";

fn section(out: &mut String, title: &str, words: &str) {
    let _ = write!(out, "\n## {}\n\n", if title.starts_with('[') { format!("`{title}`") } else { title.to_owned() });
    if !words.is_empty() {
        let _ = write!(out, "{}\n\n", cell(words).replace("\\|", "|"));
    }
    out.push_str(HEADER);
}

fn text<'a>(node: &'a Value, key: &str) -> &'a str {
    node[key].as_str().unwrap_or_default()
}

/// What a reference leads to.
fn resolve<'a>(node: &'a Value, schema: &'a Value) -> &'a Value {
    let target = text(node, "$ref").strip_prefix('#').and_then(|it| schema.pointer(it));
    target.map_or(node, |it| resolve(it, schema))
}

/// The table among what may stand here.
fn table_of<'a>(node: &'a Value, schema: &'a Value) -> &'a Value {
    let node = resolve(node, schema);
    let choices = node["anyOf"].as_array().into_iter().flatten().map(|it| resolve(it, schema));
    choices.chain([node]).find(|it| it.get("properties").is_some()).unwrap_or(node)
}

/// Which of [`SECTIONS`] tells what may stand here.
fn elsewhere(node: &Value) -> Option<&'static str> {
    let name = text(node, "$ref").rsplit('/').next().unwrap_or_default();
    SECTIONS.iter().find(|it| it.0 == name).map(|it| it.1)
}

fn is_section(node: &Value, schema: &Value) -> bool {
    let inner = resolve(node, schema);
    let of_tables =
        inner.get("items").is_some_and(|it| elsewhere(it).is_none() && resolve(it, schema).get("properties").is_some());
    let named = inner.get("additionalProperties").is_some_and(Value::is_object);
    elsewhere(node).is_none() && (inner.get("properties").is_some() || of_tables || named)
}

/// The rows of a table and of those within it.
fn rows(out: &mut String, table: &str, prefix: &str, node: &Value, schema: &Value) {
    let required: Vec<&str> = node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, value) in node["properties"].as_object().into_iter().flatten() {
        let (key, whole) = (format!("{prefix}{name}"), format!("{table}.{prefix}{name}"));
        let items = value.get("items").map(|it| table_of(it, schema)).filter(|_| elsewhere(&value["items"]).is_none());
        let inner = items.unwrap_or_else(|| table_of(value, schema));
        let opens = inner.get("properties").is_some() && elsewhere(value).is_none();
        // A table alone has nothing to say that its keys do not.
        if !opens || resolve(value, schema).get("anyOf").is_some() || value.get("anyOf").is_some() {
            row(out, &whole, &key, value, schema, required.contains(&name.as_str()));
        }
        if opens {
            let element = if items.is_some() { "[]" } else { "" };
            rows(out, table, &format!("{key}{element}."), inner, schema);
        }
    }
}

fn row(out: &mut String, whole: &str, key: &str, node: &Value, schema: &Value, needed: bool) {
    let star = if super::changes::is_read_at_start(whole) { " *" } else { "" };
    let default = match node.get("default") {
        _ if needed => "needed".to_owned(),
        Some(default) => format!("`{}`", cell(&written(default))),
        None => String::new(),
    };
    let mut meaning = text(node, "description").replace(AT_START, "").trim_end().to_owned();
    for choice in resolve(node, schema)["oneOf"].as_array().into_iter().flatten() {
        let said = text(choice, "description").trim_end_matches('.');
        if !said.is_empty() {
            meaning += &format!(" `{}`: {said}.", written(&choice["const"]).trim_matches('"'));
        }
    }
    let kind = cell(&kind(node, schema));
    let _ = writeln!(out, "| `{key}`{star} | {kind} | {default} | {} |", cell(meaning.trim()));
}

/// What may stand here, in a few words.
fn kind(node: &Value, schema: &Value) -> String {
    if let Some(section) = elsewhere(node) {
        let anchor = section.to_ascii_lowercase().replace(' ', "-");
        return format!("[{}](#{anchor})", section.to_ascii_lowercase());
    }
    let node = if node.get("title").is_some() || node.get("type").is_some() { node } else { resolve(node, schema) };
    if let Some(title) = node["title"].as_str() {
        return title.to_owned();
    }
    let choices = node["enum"].as_array().into_iter().flatten().chain(
        node["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|it| it.get("const").into_iter().chain(it["enum"].as_array().into_iter().flatten())),
    );
    let choices: Vec<String> = choices.map(|it| format!("`{}`", written(it))).collect();
    if !choices.is_empty() {
        return choices.join(", ");
    }
    if let Some(any) = node["anyOf"].as_array() {
        return any.iter().map(|it| kind(it, schema)).collect::<Vec<_>>().join(" or ");
    }
    match node["type"].as_str() {
        Some("string") => "a text".to_owned(),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer" | "number") => match (node["minimum"].as_f64(), node["maximum"].as_f64()) {
            (least, Some(most)) => format!("a number, {} to {most}", least.unwrap_or(0.0)),
            _ => "a number".to_owned(),
        },
        Some("array") => format!("a list: {}", kind(&node["items"], schema)),
        Some("object") => match node.get("additionalProperties").filter(|it| it.is_object()) {
            Some(values) => format!("a table: name = {}", kind(values, schema)),
            None => "a table".to_owned(),
        },
        _ => String::new(),
    }
}

/// In one line, and without what would end the cell.
fn cell(text: &str) -> String {
    text.replace("\n\n", " ").replace('\n', " ").replace('|', "\\|")
}
