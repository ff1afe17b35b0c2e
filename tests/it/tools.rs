//! What the command line does for authors of plugins: `moongate plugin new`, `test`, `bench` and `inspect`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use moongate::plugin::bundled::BUNDLED;
use tempfile::TempDir;

use crate::support::wasm::{built, fixture};

/// How the binary ended, and what it wrote.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    /// The line of a check, with those that belong to it.
    fn check(&self, what: &str) -> String {
        let mut lines = self.out.lines().skip_while(|line| !line.get(8..).is_some_and(|it| it.starts_with(what)));
        let first = lines.next().unwrap_or_else(|| panic!("there is no check {what:?}:\n{}{}", self.out, self.err));
        let rest = lines.take_while(|line| line.starts_with(' '));
        [first].into_iter().chain(rest).collect::<Vec<_>>().join("\n")
    }

    fn assert(&self, what: &str, mark: &str, words: &str) {
        let text = self.check(what);
        assert!(
            text.starts_with(mark) && text.contains(words),
            "{mark} and {words:?} are not in:\n{text}\n{}",
            self.out
        );
    }
}

fn plugin(arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
    let output = command.arg("plugin").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn test(file: &Path, arguments: &[&str]) -> Ended {
    plugin(&[&["test", file.to_str().unwrap()], arguments].concat())
}

/// A bundled plugin as a file.
fn bundled(dir: &TempDir, name: &str) -> PathBuf {
    let file = dir.path().join(name).with_extension("wasm");
    let (_, bytes) = BUNDLED.iter().find(|it| it.0 == name).unwrap();
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn bundled_plugins_pass_their_own_test() {
    let dir = TempDir::new().unwrap();
    for name in ["round-robin", "random", "weighted"] {
        let ended = test(&bundled(&dir, name), &[]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{name}:\n{}", ended.out);
        ended.assert("eight endpoints", "ok", "8 of them picked");
        ended.assert("retries", "ok", "");
        ended.assert("memory", "ok", "over 100000 picks");
        assert!(ended.out.contains("\nnothing failed: "), "{}", ended.out);
    }
    let file = bundled(&dir, "set-header");
    let ended = test(&file, &["--config", r#"{"name": "x-env", "value": "prod", "on": "both"}"#]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    ended.assert("refuses a wrong configuration", "ok", "unknown field `no-such-option-of-any-plugin`");
    ended.assert("a request with odd bytes", "ok", "passed on");
    ended.assert("memory", "ok", "over 100000 requests");
    let config = dir.path().join("config.json");
    fs::write(&config, r#"{"name": "x y", "value": "prod"}"#).unwrap();
    for (arguments, words) in [
        (&[][..], "missing field `name`"),
        (&["--config", &format!("@{}", config.display())], "`name` is `x y`, which is no header's name"),
    ] {
        let ended = test(&file, arguments);
        assert_eq!(ended.code, 1, "{}", ended.out);
        ended.assert("takes its configuration", "FAILED", words);
        assert!(ended.check("takes its configuration").contains("hint: "), "{}", ended.out);
    }
}

#[test]
fn what_would_fail_in_the_gateway_fails_here_in_plain_words() {
    for (name, check, words) in [
        ("first", "no endpoints", "`pick` returned 0 of 0 endpoints"),
        ("wrong-index", "takes its configuration, and picks", "`pick` returned 15 of 8 endpoints"),
        ("trapping", "takes its configuration, and picks", "as it always does"),
        ("trap-configure", "takes its configuration, and picks", "not today"),
        ("looping", "takes its configuration, and picks", "it was stopped for taking too long"),
        ("late-trap", "eight endpoints", "the tenth pick"),
        ("late-wrong", "eight endpoints", "of 8 endpoints"),
        ("leaking", "memory", "memory grows"),
        ("mixing", "two uses at once", "keep the endpoints of each binding by its number"),
    ] {
        let ended = test(fixture(name), &[]);
        assert_eq!(ended.code, 1, "{name}:\n{}", ended.out);
        ended.assert(check, "FAILED", words);
        assert!(ended.out.contains(" FAILED: "), "{name}:\n{}", ended.out);
    }
    let dir = TempDir::new().unwrap();
    let text = dir.path().join("text.wasm");
    fs::write(&text, "#!/bin/sh").unwrap();
    let ended = test(&text, &[]);
    assert!(ended.code == 1 && ended.err.contains("text.wasm: the file is not WebAssembly"), "{}", ended.err);
    let ended = test(fixture("first"), &["--config", "[]"]);
    assert!(ended.code == 2 && ended.err.contains("--config"), "{}", ended.err);
}

#[test]
fn filters_that_answer_or_look_at_bodies_are_tested_as_such() {
    let ended = test(fixture("answers"), &[]);
    assert_eq!(ended.code, 0, "{}", ended.out);
    ended.assert("a request without fields", "ok", "answered with 403");
    // What it needs (the store) needs no configuration here.
    let ended = test(fixture("counts"), &[]);
    assert_eq!(ended.code, 0, "{}", ended.out);
    for (whole, words) in
        [("", "seen piece by piece"), (r#", "whole": 1000000"#, "seen as a whole, up to 1000000 bytes")]
    {
        let config = format!(r#"{{"request": true, "response": true, "what": "upper"{whole}}}"#);
        let ended = test(fixture("shows"), &["--config", &config]);
        assert_eq!(ended.code, 0, "{}", ended.out);
        ended.assert("bodies of requests", "ok", words);
        ended.assert("bodies of responses", "ok", words);
    }
    let ended = test(fixture("shows"), &["--config", r#"{"request": true, "response": false, "what": "trap"}"#]);
    assert_eq!(ended.code, 1, "{}", ended.out);
    ended.assert("bodies of requests", "FAILED", "as it was told");
    ended.assert("bodies of responses", "note", "it asked for none");
}

#[test]
fn an_author_says_what_is_expected() {
    let dir = TempDir::new().unwrap();
    let scenario = |text: &str| {
        let file = dir.path().join("it.toml");
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let weighted = bundled(&dir, "weighted");
    let endpoints = "endpoints = [{ address = \"10.0.0.1:80\", weight = 3 }, { address = \"10.0.0.2:80\" }]\n";
    let good = "[[picks]]\nshares = { \"10.0.0.1:80\" = \"75%\", \"10.0.0.2:80\" = \"25%\" }\ntolerance = \"1%\"\n\
                [[picks]]\ntried = [\"10.0.0.1:80\"]\nexpect = \"10.0.0.2:80\"\n";
    let ended = test(&weighted, &["--scenario", &scenario(&format!("{endpoints}{good}"))]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    assert!(ended.out.contains("it.toml:2: picks[0]: shares as expected over 10000 picks"), "{}", ended.out);
    assert!(ended.out.contains("picks[1]: 10.0.0.2:80 at each of 1"), "{}", ended.out);

    let bad = good.replace("75%", "60%").replace("expect = \"10.0.0.2:80\"", "expect = \"none\"");
    let ended = test(&weighted, &["--scenario", &scenario(&format!("{endpoints}{bad}"))]);
    assert_eq!(ended.code, 1, "{}", ended.out);
    for words in ["10.0.0.1:80: expected 60 % ± 1 % of 10000 picks, came 75 %", "expected no opinion, came 10.0.0.2:80"]
    {
        assert!(ended.out.contains(words), "{words} is not in\n{}", ended.out);
    }

    let header = bundled(&dir, "set-header");
    let requests = "config = { name = \"x-env\", value = \"prod\", on = \"both\" }\n[[requests]]\npath = \"/a\"\n\
                    body = \"text\"\nresponse = { status = 404 }\n\
                    expect = { path = \"/a\", headers = { x-env = \"prod\" }, absent = [\"cookie\"], body = \"text\" }\n\
                    expect_response = { status = 404, headers = { x-env = \"prod\" } }\n";
    let ended = test(&header, &["--scenario", &scenario(requests)]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let ended = test(&header, &["--scenario", &scenario(&requests.replace("\"/a\", headers", "\"/b\", headers"))]);
    assert!(ended.code == 1 && ended.out.contains("path: expected \"/b\", came \"/a\""), "{}", ended.out);

    for (text, words) in [
        (requests.replace("path", "pth"), "it.toml:3:1: requests[0].pth: unknown key \"pth\"; did you mean \"path\"?"),
        (format!("{endpoints}{good}"), "[[picks]] are for balancers, and the plugin is a filter"),
        (String::new(), "nothing is expected"),
    ] {
        let ended = test(&header, &["--scenario", &scenario(&text)]);
        assert!(ended.code == 1 && ended.err.contains(words), "{words} is not in\n{}", ended.err);
    }
}

#[test]
fn what_a_plugin_costs_is_told_beside_the_bundled_one() {
    let dir = TempDir::new().unwrap();
    let ended = plugin(&["bench", bundled(&dir, "random").to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let rows = [
        "pick of 8 endpoints",
        "pick of 1,000 endpoints",
        "start an instance",
        "memory of an instance",
        "linear memory",
        "compile",
        "file",
    ];
    for row in rows {
        let line = ended.out.lines().find(|line| line.starts_with(row));
        let line = line.unwrap_or_else(|| panic!("{row} is not in\n{}", ended.out));
        assert!(line.contains(" ns") || line.contains(" µs") || line.contains(" ms") || line.contains("B"), "{line}");
    }
    assert!(ended.out.lines().next().unwrap().contains("round-robin"), "{}", ended.out);
    let file = bundled(&dir, "set-header");
    let ended = plugin(&["bench", file.to_str().unwrap(), "--config", r#"{"name": "x", "value": "y"}"#]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("request of 8 fields") && ended.out.contains("response of 8 fields"), "{}", ended.out);
    let ended = plugin(&["bench", file.to_str().unwrap()]);
    assert!(ended.code == 1 && ended.err.contains("missing field `name`"), "{}", ended.err);
}

#[test]
fn inspect_tells_what_must_be_allowed_and_how_to_configure_it() {
    let ended = plugin(&["inspect", fixture("shows").to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("needs      bodies, to be allowed in moongate.toml:"), "{}", ended.out);
    assert!(ended.out.contains("capabilities = { \"shows\" = [\"bodies\"] }"), "{}", ended.out);
    let ended = plugin(&["inspect", fixture("first").to_str().unwrap()]);
    assert!(ended.out.contains("needs      (nothing)") && !ended.out.contains("\nconfig "), "{}", ended.out);

    // A custom section (section 2.5.3 of the WebAssembly specification), short enough for lengths of one byte.
    let (name, text) = ("config-schema", r#"{"type":"object"}"#);
    let mut module = fs::read(fixture("first")).unwrap();
    module.extend([0, (1 + name.len() + text.len()) as u8, name.len() as u8]);
    module.extend(name.bytes().chain(text.bytes()));
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("with-schema.wasm");
    fs::write(&file, module).unwrap();
    let ended = plugin(&["inspect", file.to_str().unwrap()]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("config     {\n             \"type\": \"object\"\n           }\n"), "{}", ended.out);
}

#[test]
fn the_uses_that_the_documentation_shows_are_understood() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/plugins.md")).unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("keys.json"), "{}").unwrap();
    let blocks = page.split("```toml\n").skip(1).filter_map(|it| it.split("```").next());
    let uses: Vec<&str> = blocks.filter(|it| it.contains("[[routes]]") || it.contains("[defaults]")).collect();
    assert_eq!(uses.len(), 3);
    for text in uses {
        let config = moongate::config::file::parse(text, &dir.path().join("moongate.toml"));
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert!(!config.uses().is_empty());
    }
}

#[test]
fn a_new_plugin_is_built_and_passes() {
    let dir = TempDir::new().unwrap();
    for (kind, name, config) in
        [("balancer", "new-balancer", "{}"), ("filter", "new-filter", r#"{"name": "x-env", "value": "prod"}"#)]
    {
        let project = dir.path().join(name);
        let arguments = ["new", name, "--kind", kind, "--lang", "rust", "--dir", project.to_str().unwrap()];
        let ended = plugin(&arguments);
        assert_eq!(ended.code, 0, "{}", ended.err);
        assert!(
            ended.out.contains("./build.sh") && ended.out.contains(&format!("{name}.wasm plugins/")),
            "{}",
            ended.out
        );
        let wit = fs::read_to_string(project.join("wit/moongate.wit")).unwrap();
        assert_eq!(wit, fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit/moongate.wit")).unwrap());
        let ended = test(&built(&project, name), &["--config", config]);
        assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
        let again = plugin(&arguments);
        assert!(again.code == 1 && again.err.contains("is there already, and is not empty"), "{}", again.err);
    }
    let ended = plugin(&["new", "it", "--kind", "filter", "--lang", "cobol"]);
    assert!(ended.code == 2 && ended.err.contains("there are: ") && ended.err.contains("rust"), "{}", ended.err);
}
