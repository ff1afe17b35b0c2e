//! All cases against the gateway as it is built now: what fails and is not on the list of known failures fails the test,
//! and so does what is on the list and passes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use conformance::{Kind, Options, Run};
use serde_json::Value;

/// One `group/case: reason` a line; `#` starts a comment.
const KNOWN: &str = include_str!("known-failures.txt");

/// Builds the gateway as the tests beside this one are built (so that nothing is built twice), and tells where it is.
fn binary() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--locked", "--workspace", "--no-run", "--test", "it", "--message-format=json"]);
    cargo.arg("--target-dir").arg(target).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().expect("running cargo");
    assert!(output.status.success(), "the gateway does not build");
    let built = String::from_utf8(output.stdout).expect("cargo's messages");
    let messages = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut binaries = messages.filter(|it| it["target"]["name"] == "moongate" && it["target"]["kind"][0] == "bin");
    let binary = binaries.find_map(|it| Some(it["executable"].as_str()?.to_owned()));
    binary.expect("the gateway among what was built").into()
}

fn known() -> BTreeMap<&'static str, &'static str> {
    let lines = KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no reason for {line}"))).collect()
}

#[test]
fn the_gateway_passes_every_case() {
    let run = Run::of(Kind::Moongate, &binary(), &Options::default()).expect("judging the gateway");
    assert!(run.judged() > 400, "only {} cases were judged", run.judged());
    let known = known();
    let failures: BTreeMap<String, String> = run.failures().into_iter().collect();
    let new: Vec<String> = failures
        .iter()
        .filter(|(id, _)| !known.contains_key(id.as_str()))
        .map(|(id, what)| format!("{id}: {what}"))
        .collect();
    assert!(new.is_empty(), "{} of {} cases fail:\n{}", new.len(), run.judged(), new.join("\n"));
    let fixed: Vec<_> = known.keys().filter(|id| !failures.contains_key(**id)).collect();
    assert!(fixed.is_empty(), "on the list of known failures, but they pass: {fixed:?}");
}
