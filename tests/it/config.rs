//! What an operator reads: each `tests/config/invalid/NAME.toml` has its mistakes beside it in `NAME.err`, and each
//! `tests/config/valid/NAME.toml` loads. `BLESS=1` writes the former anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

use moongate::config::Kind;
use moongate::config::file::{check_plugins, load, parse};
use moongate::config::mistakes::{Mistakes, nearest};
use moongate::config::upstream::{self, Upstream};

fn cases(folder: &str) -> Vec<PathBuf> {
    toml_files(&format!("tests/config/{folder}"))
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut all: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    all.retain(|it| it.extension().is_some_and(|it| it == "toml"));
    all.sort();
    assert!(!all.is_empty(), "{} holds no case", folder.display());
    all
}

/// Plugins as a gateway with three of them would know them.
fn known(plugin: &str, kind: Kind, config: &str) -> Result<(), String> {
    let all = [("round-robin", Kind::Balancer), ("weighted", Kind::Balancer), ("set-header", Kind::Filter)];
    match all.iter().find(|it| it.0 == plugin) {
        None => {
            let near = nearest(plugin, all.iter().map(|it| it.0));
            let help = near.map(|it| format!("; did you mean {it:?}?")).unwrap_or_default();
            Err(format!("there is no plugin {plugin:?}{help}"))
        }
        Some((_, Kind::Filter)) if kind == Kind::Balancer => Err(format!("{plugin:?} is a filter, not a balancer")),
        Some((_, Kind::Balancer)) if kind == Kind::Filter => Err(format!("{plugin:?} is a balancer, not a filter")),
        Some(("set-header", _)) if config.contains("name") != config.contains("value") => {
            Err(format!("{plugin:?} refuses its config: name and value belong together"))
        }
        Some(_) => Ok(()),
    }
}

fn mistakes(case: &Path) -> Mistakes {
    match load(case) {
        Ok(config) => check_plugins(&config, &known),
        Err(mistakes) => mistakes,
    }
}

#[test]
fn invalid_files_say_why() {
    for case in cases("invalid") {
        let mut mistakes = mistakes(&case);
        assert!(!mistakes.is_empty(), "{} has no mistake", case.display());
        // The checkout's own directory is not part of what is compared.
        mistakes.file = case.file_name().unwrap().into();
        let error = format!("{mistakes}\n");
        let golden = case.with_extension("err");
        if env::var_os("BLESS").is_some() {
            fs::write(&golden, &error).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(error, expected, "{} (BLESS=1 accepts what is on the left)", case.display());
    }
}

#[test]
fn valid_files_load() {
    for case in cases("valid") {
        let mistakes = load(&case).err();
        assert!(mistakes.is_none(), "{}", mistakes.unwrap());
    }
}

#[test]
fn the_examples_load() {
    let mut services = 0;
    for example in toml_files("examples/config") {
        let mistakes = if example.ends_with("services.toml") {
            services += 1;
            moongate::registry::file::load(&example).err()
        } else {
            match load(&example) {
                Ok(config) => Some(check_plugins(&config, &known)).filter(|it| !it.is_empty()),
                Err(mistakes) => Some(mistakes),
            }
        };
        assert!(mistakes.is_none(), "{}", mistakes.unwrap());
    }
    assert_eq!(services, 1);
}

#[test]
fn what_the_example_calls_defaults_are_the_defaults() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/config/moongate.toml");
    let told = |text: &str| {
        let mut config = parse(text, Path::new("moongate.toml")).unwrap();
        config.source.text = "".into();
        // Where in the file a balancer stands is no part of what it says.
        config.defaults.balancer.used.at = 0..0;
        let upstream = config.upstream.over(upstream::Settings::default());
        config.upstream = Upstream::default();
        format!("{config:#?}\n{upstream:#?}")
    };
    // These two stand for themselves: by default there is none.
    let tables = "[registry.file]\npath = 'services.toml'\n[auto_routes]\n";
    assert_eq!(told(&fs::read_to_string(example).unwrap()), told(tables));
}

#[test]
fn values_are_normalised_and_paths_start_at_the_file() {
    let case = cases("valid").into_iter().find(|it| it.ends_with("everything.toml")).unwrap();
    let dir = case.parent().unwrap();
    let config = load(&case).unwrap();
    assert_eq!(config.plugins.dir, dir.join("plugins"));
    assert_eq!(config.registry.file.unwrap().path, dir.join("services.toml"));
    assert_eq!(config.registry.zookeeper.unwrap().snapshot.unwrap(), dir.join("routes.snapshot.json"));
    let route = config.routes[0].get_ref();
    assert_eq!(route.path_prefix.as_str(), "/shop");
    assert_eq!(&*route.host.as_ref().unwrap().0, "*.example.com");
    assert_eq!(route.headers.keys().next().unwrap().0, "x-version");
    let filters = route.filters.as_ref().unwrap();
    assert_eq!(&*filters[0].used.config, "{}");
    assert_eq!(&*filters[1].used.config, r#"{"at":"2026-01-02","deep":[{"n":1.5}],"name":"x-env"}"#);
    assert!(filters[1].on_failure.is_some());
}

#[test]
fn no_damage_to_a_file_is_more_than_mistakes() {
    let case = cases("valid").into_iter().find(|it| it.ends_with("everything.toml")).unwrap();
    let text = fs::read_to_string(&case).unwrap();
    let mut refused = 0;
    for (at, it) in text.char_indices() {
        let rest = &text[at + it.len_utf8()..];
        for damaged in [text[..at].to_owned(), text[..at].to_owned() + rest, format!("{}\u{e4}{rest}", &text[..at])] {
            if let Err(mistakes) = parse(&damaged, &case) {
                assert!(!mistakes.is_empty(), "refused without a reason:\n{damaged}");
                assert!(mistakes.to_string().contains(".toml:"));
                refused += 1;
            }
        }
    }
    assert!(refused > text.len(), "most damage shows: {refused} of {}", 3 * text.len());
}

#[test]
fn more_mistakes_than_anybody_reads_are_cut_off() {
    let text: String = (0..300).map(|it| format!("unknown_{it} = 1\n")).collect();
    let mistakes = parse(&text, Path::new("many.toml")).unwrap_err();
    assert_eq!(mistakes.all.len(), 100);
}
