//! What the documentation tells people to type works: every block of shell in it is run, in the order of its document, and what a
//! comment behind a command says of its answer is looked for.
//!
//! A document is one session of bash in a copy of the project, in a network of its own (so that its ports are free), with the
//! gateway that the tests were built with. Comments before a block, which only readers of the source see, say what is different:
//!
//! - `<!-- not run: needs a Docker engine -->`: it cannot be run here, and why.
//! - `<!-- background -->`: it goes on while others are run.
//! - `<!-- first: moongate demo & -->`: what readers have done already when they come here.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A block of shell.
#[derive(Default)]
struct Block {
    line: usize,
    text: String,
    /// Why it is not run, if it is not.
    not_run: Option<String>,
    background: bool,
    first: String,
}

/// What a session begins with. Building is done, `cargo run` is the gateway that was built, and whoever calls a gateway that was
/// started in the line before waits for it.
const PROLOGUE: &str = r#"
set -euo pipefail
ip link set lo up
cargo() {
    [[ $1 == run ]] || return 0
    while [[ $# -gt 0 && $1 != -- ]]; do shift; done
    [[ $# -eq 0 ]] || shift
    moongate "$@"
}
rustup() { :; }
curl() { command curl --silent --show-error --max-time 10 --retry 60 --retry-delay 1 --retry-connrefused "$@"; }
finish() { trap "" TERM; kill 0; }
trap finish EXIT
"#;

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut next) = (false, Block::default());
    for (line, text) in text.lines().enumerate() {
        if open {
            match blocks.last_mut() {
                _ if text == "```" => open = false,
                Some(block) => block.text += &format!("{text}\n"),
                None => {}
            }
        } else if text == "```sh" {
            open = true;
            blocks.push(Block { line: line + 1, ..std::mem::take(&mut next) });
        } else if let Some(said) = text.strip_prefix("<!-- ").and_then(|it| it.strip_suffix(" -->")) {
            match said.split_once(": ") {
                Some(("not run", why)) => next.not_run = Some(why.to_owned()),
                Some(("first", commands)) => next.first = format!("{commands}\n"),
                _ => next.background |= said == "background",
            }
        } else if !text.is_empty() {
            next = Block::default();
        }
    }
    blocks
}

/// Answers that comments promise: whole sentences behind a command.
fn promised(block: &Block) -> impl Iterator<Item = &str> {
    let commands = block.text.lines().filter(|line| line.starts_with("curl "));
    let comments = commands.filter_map(|line| Some(line.rsplit_once(" # ")?.1.trim()));
    comments.filter(|it| it.ends_with('.') && it.starts_with(char::is_uppercase))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Runs a document's blocks; what went wrong.
fn run(document: &Path, blocks: &[Block]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    // Files are links, directories are not: what a session makes stays here.
    let project = dir.path().join("project");
    fs::create_dir(&project).unwrap();
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name();
        if !["target", ".git"].iter().any(|it| name == *it) {
            let copied = Command::new("cp").arg("-as").arg(entry.path()).arg(&project).status().unwrap();
            assert!(copied.success(), "copying {name:?}");
        }
    }
    let mut script = String::from(PROLOGUE);
    for block in blocks.iter().filter(|it| it.not_run.is_none()) {
        let at = format!("{}:{}", document.display(), block.line);
        let text = if block.background { format!("{{\n{}}} &\n", block.text) } else { block.text.clone() };
        write!(script, "echo '== {at}' >&2\n{}{text}", block.first).unwrap();
    }
    let gateway = Path::new(env!("CARGO_BIN_EXE_moongate")).parent().unwrap();
    let path = format!("{}:{}", gateway.display(), std::env::var("PATH").unwrap());
    // In a session of its own, so that whatever it started ends with it.
    let output = Command::new("setsid")
        .args(["--wait", "timeout", "300", "unshare", "--map-root-user", "--net", "bash", "-c", &script])
        .current_dir(&project)
        .env("PATH", path)
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env_remove("CARGO_TARGET_DIR")
        // See `download`.
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{}: {}\n{said}\n{told}", document.display(), output.status));
    }
    for block in blocks.iter().filter(|it| it.not_run.is_none()) {
        for promised in promised(block) {
            if !said.contains(promised) {
                return Err(format!("{}:{}: no answer is {promised:?}\n{said}", document.display(), block.line));
            }
        }
    }
    Ok(())
}

/// Has what a new plugin's project needs downloaded, because there is no way out of a session's network.
fn download() {
    let dir = tempfile::tempdir().unwrap();
    let new = ["plugin", "new", "downloaded", "--kind", "balancer", "--lang", "rust"];
    let made = Command::new(env!("CARGO_BIN_EXE_moongate")).args(new).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let project = dir.path().join("downloaded");
    let fetched = Command::new("cargo").arg("fetch").current_dir(project).output().unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
}

#[test]
fn what_the_documentation_shows_can_be_typed() {
    download();
    let mut documents = vec![root().join("README.md")];
    documents.extend(fs::read_dir(root().join("docs")).unwrap().flatten().map(|it| it.path()));
    documents.retain(|it| it.extension().is_some_and(|it| it == "md"));
    documents.sort();
    let (mut wrong, mut ran, mut left) = (Vec::new(), 0, Vec::new());
    for document in documents {
        let blocks = blocks(&fs::read_to_string(&document).unwrap());
        let name = document.strip_prefix(root()).unwrap();
        for block in &blocks {
            match &block.not_run {
                Some(why) => left.push(format!("{}:{}: {why}", name.display(), block.line)),
                None => ran += 1,
            }
        }
        if blocks.iter().any(|it| it.not_run.is_none()) {
            wrong.extend(run(name, &blocks).err());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(ran > 8, "only {ran} blocks were run");
    println!("{ran} blocks were run; not run:\n{}", left.join("\n"));
}

#[test]
fn blocks_are_found_with_their_reasons() {
    let text = "a\n```sh\ncurl x   # This is it.\nls   # not this\n```\n<!-- not run: no engine -->\n\n```sh\ndocker\n```\n\
                ```toml\nx = 1\n```\n<!-- first: a & -->\n<!-- background -->\n```sh\nb\n```\n";
    let found = blocks(text);
    let told: Vec<_> = found.iter().map(|it| (it.line, it.text.lines().count(), it.not_run.as_deref())).collect();
    assert_eq!(told, [(2, 2, None), (8, 1, Some("no engine")), (16, 1, None)]);
    assert_eq!((&*found[2].first, found[2].background, found[0].background), ("a &\n", true, false));
    assert_eq!(promised(&found[0]).collect::<Vec<_>>(), ["This is it."]);
}
