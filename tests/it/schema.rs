//! What is said of the configuration, by its schema, `docs/config.md` and `moongate config`, is what the loader goes by.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use moongate::config::file::parse;
use moongate::config::{reference, schema};
use serde_json::Value;

use crate::support::schema::refused;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(root().join(folder)).unwrap().map(|it| it.unwrap().path()).collect();
    all.retain(|it| it.extension().is_some_and(|it| it == "toml") && !it.ends_with("services.toml"));
    assert!(!all.is_empty(), "{folder} holds no case");
    all
}

/// A file as JSON, if it is TOML at all. Dates are texts there.
fn read(file: &Path) -> Option<Value> {
    fn json(value: toml::Value) -> Value {
        match value {
            toml::Value::Datetime(it) => it.to_string().into(),
            toml::Value::Array(all) => all.into_iter().map(json).collect(),
            toml::Value::Table(all) => all.into_iter().map(|(key, value)| (key, json(value))).collect(),
            toml::Value::Float(it) => it.into(),
            other => serde_json::to_value(other).unwrap(),
        }
    }
    fs::read_to_string(file).unwrap().parse::<toml::Table>().ok().map(|it| json(toml::Value::Table(it)))
}

#[test]
fn what_loads_is_as_the_schema_says() {
    let schema = schema::schema();
    for file in [toml_files("examples/config"), toml_files("tests/config/valid")].concat() {
        let why = refused(&schema, &read(&file).unwrap());
        assert_eq!(why, None, "{}", file.display());
    }
}

/// Cases whose mistakes no schema can see: values of a right type that mean nothing, keys that contradict each other, and
/// plugins that there are not.
const BEYOND: &[&str] = &[
    "bad-address",
    "bad-address-in-list",
    "bad-header-name",
    "bad-match",
    "bad-prefixes",
    "bad-size",
    "config-refused",
    "duplicate-route",
    "filter-as-balancer",
    "header-routes-taken",
    "only-bad-listen",
    "prefix-without-slash",
    "small-size",
    "syntax",
    "unknown-plugin",
];

#[test]
fn what_is_built_wrongly_is_not_as_the_schema_says() {
    let schema = schema::schema();
    let mut seen = 0;
    for file in toml_files("tests/config/invalid") {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let why = read(&file).and_then(|it| refused(&schema, &it));
        assert_eq!(why.is_some(), !BEYOND.contains(&name), "{name}: {why:?}");
        seen += usize::from(why.is_some());
    }
    assert!(seen >= 10, "only {seen} cases were looked at");
}

/// Where a number stands in the schema, its bounds are the loader's: one less or one more is refused.
#[test]
fn the_bounds_of_numbers_are_those_of_the_loader() {
    fn visit(schema: &Value, node: &Value, path: &str, found: &mut Vec<(String, i64, i64)>) {
        let target = node["$ref"].as_str().map(|it| schema.pointer(&it[1..]).unwrap()).unwrap_or(node);
        if let (Some(most), "integer") = (target["maximum"].as_i64(), target["type"].as_str().unwrap_or_default()) {
            found.push((path.to_owned(), target["minimum"].as_i64().unwrap_or(0), most));
        }
        for (key, inner) in target["properties"].as_object().into_iter().flatten() {
            // A balancer may have another one within.
            if ["balancer", "filters"].contains(&&**key) {
                continue;
            }
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            visit(schema, inner, &path, found);
        }
        for choice in target["anyOf"].as_array().into_iter().flatten() {
            visit(schema, choice, path, found);
        }
    }
    let schema = schema::schema();
    let mut found = Vec::new();
    visit(&schema, &schema, "", &mut found);
    assert!(found.len() > 15, "{found:?}");
    for (key, least, most) in &found {
        let loads = |number: i64| parse(&format!("{key} = {number}\n"), Path::new("it.toml")).map(|_| ());
        for (number, good) in [(*least, true), (*most, true), (least - 1, false), (most + 1, false)] {
            let outcome = loads(number);
            assert_eq!(outcome.is_ok(), good, "{key} = {number}: {outcome:?}");
        }
    }
}

#[test]
fn the_reference_is_what_the_types_say() {
    let file = root().join("docs/config.md");
    let text = reference::reference();
    if env::var_os("BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let known = fs::read_to_string(&file).unwrap_or_default();
    let differs = known.lines().zip(text.lines()).find(|(known, now)| known != now);
    assert!(known == text, "docs/config.md is not what the types say (BLESS=1 writes it anew): {differs:#?}");
    for row in text.lines().filter(|it| it.starts_with("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert!(!cells[1].is_empty() && cells.last().unwrap().len() > 4, "nothing is said of {row}");
    }
}

#[test]
fn a_misspelt_key_has_its_neighbour_told_wherever_it_stands() {
    for (text, wanted) in [
        ("wokers = 1", "\"workers\""),
        ("[limits]\nheader = 1", "\"headers\""),
        ("[limits.http2]\nstream = 1", "\"streams\""),
        ("[registry.zookeper]\nservers = 'a'", "\"zookeeper\""),
        ("[registry.zookeeper]\nserver = 'a'", "\"servers\""),
        ("[upstream.outlier]\nejct = '1s'", "\"eject\""),
        ("[services.a.health_check]\npaht = '/'", "\"path\""),
        ("[upstream]\ntls = { verfy = true }", "\"verify\""),
        ("[[listeners]]\naddress = '127.0.0.1:1'\nprotocol = ['h2']", "\"protocols\""),
        (
            "[[listeners]]\naddress = '127.0.0.1:1'\ntls = { certificates = [{ certificat = 'a', key = 'b' }] }",
            "\"certificate\"",
        ),
        ("[[routes]]\npath_prefix = '/'\nservice = 's'\ntimeout = { conect = '1s' }", "\"connect\""),
        (
            "[[routes]]\npath_prefix = '/'\nservice = 's'\nfilters = ['cors', { plugin = 'cors', confg = {} }]",
            "\"config\"",
        ),
        ("[defaults]\nbalancer = { plugin = 'random', fallback = { plugin = 'random', canry = 1 } }", "\"canary\""),
        ("[tracing]\nendpoint = 'http://a'\nsampel = '1%'", "\"sample\""),
        ("[log]\nlevel = 'inof'", "\"info\""),
    ] {
        let told = parse(text, Path::new("it.toml")).unwrap_err().to_string();
        assert!(told.contains(&format!("did you mean {wanted}?")), "{text}\n{told}");
    }
}

#[test]
fn the_command_tells_schema_reference_and_settings() {
    let dir = tempfile::tempdir().unwrap();
    let moongate = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
        let output = command.arg("config").args(arguments).current_dir(dir.path()).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = moongate(&["--schema"]);
    assert_eq!((code, serde_json::from_str::<Value>(&text).unwrap()), (0, schema::schema()));
    assert_eq!(moongate(&["--reference"]), (0, reference::reference()));
    let (code, text) = moongate(&["--print", "--workers", "3"]);
    assert!(code == 0 && text.contains("# flag --workers") && text.contains("# default without"), "{text}");
    fs::write(dir.path().join("moongate.toml"), "wokers = 1\n").unwrap();
    let (code, text) = moongate(&["--print"]);
    assert!(code == 1 && text.contains("did you mean \"workers\"?"), "{text}");
    assert_eq!(moongate(&[]).0, 2);
}
