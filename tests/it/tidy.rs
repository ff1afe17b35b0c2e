//! The architecture as a test: modules use only those before them, foreign crates have one home, files stay small.

use std::fs;
use std::path::{Path, PathBuf};

/// All source files of the gateway, relative to `src/`.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false if path.extension().is_some_and(|it| it == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 20, "these are not the sources: {found:?}");
    found
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The lines that are code, not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn modules_use_only_those_before_them() {
    let files = sources();
    let (_, map) = files.iter().find(|(path, _)| path == Path::new("lib.rs")).unwrap();
    let order: Vec<&str> = code(map).filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(order.len() > 10);
    for (path, text) in &files {
        let module = path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(place) = order.iter().position(|it| *it == module) else { continue };
        for later in &order[place + 1..] {
            let used = code(text)
                .find(|line| line.contains(&format!("crate::{later}::")) || line.contains(&format!("crate::{later};")));
            assert!(used.is_none(), "{} uses {later}, which stands after {module} in lib.rs: {used:?}", path.display());
        }
    }
}

#[test]
fn foreign_crates_have_one_home() {
    for (krate, home) in [
        ("wasmtime::", "plugin/"),
        ("wit_component::", "plugin/"),
        ("wit_parser::", "plugin/"),
        ("zookeeper_client::", "registry/zookeeper"),
        ("notify::", "watch.rs"),
        ("ring::digest", "proxy/opening.rs"),
        ("clap::", "cli/"),
        ("schemars::", "config/"),
        ("tracing_subscriber::", "logging.rs"),
        ("socket2::", "server/"),
        ("arc_swap::", "snapshot.rs"),
        ("rustls::", "tls/"),
        ("webpki::", "tls/"),
        ("rustls_native_certs::", "tls/"),
        ("rustix::", "server/handover.rs"),
        ("serde_json_borrow::", "registry/layouts/"),
        ("wide::", "scan.rs"),
    ] {
        let mut users = 0;
        for (path, text) in sources() {
            if code(&text).any(|line| line.contains(krate)) {
                users += 1;
                let path = path.to_str().unwrap();
                // A worker keeps the cache that goes with the swap; certificates are swapped by themselves, because no
                // request looks at them; what comes out of a handshake is a connection like any other. Both sides
                // of a connection speak HTTP/2, with what `http2` has for both. What stops plugins asks the system for
                // the time of a thread.
                let also = [
                    ("arc_swap::", "proxy/mod.rs"),
                    ("arc_swap::", "tls/"),
                    ("rustls::", "stream.rs"),
                    ("rustix::", "cli/register/process.rs"),
                    ("rustix::", "plugin/engine.rs"),
                    ("tracing_subscriber::", "cli/test/report.rs"),
                    ("h2::", "health/probe.rs"),
                    ("h2::", "proxy/upstream/http2.rs"),
                    ("h2::", "proxy/upstream/links.rs"),
                ];
                let also = also.iter().any(|it| krate == it.0 && path.starts_with(it.1));
                assert!(path.starts_with(home) || also, "{krate} is used in {path}; its home is {home}");
            }
        }
        assert!(users > 0, "{krate} has no user");
    }
}

#[test]
fn files_say_what_they_own_and_stay_small() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not say what it owns", path.display());
        let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines without its tests", path.display());
    }
}
