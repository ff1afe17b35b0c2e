//! WebAssembly files for the tests: plugins that misbehave, and one made as an author outside this repository would.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const TARGET: &str = "wasm32-unknown-unknown";

/// The core module of a fixture: `first` is what `tests/plugins/examples/first.rs` makes. The first call builds them
/// all.
pub(crate) fn fixture(name: &str) -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        cargo_build(&repository().join("tests/plugins"), &["--locked", "--examples"]);
        target_dir().join(TARGET).join("release/examples")
    });
    let file = directory.join(name.replace('-', "_")).with_extension("wasm");
    assert!(file.exists(), "there is no fixture {name}: {} is missing", file.display());
    file.leak() // A few names a test run.
}

/// The core module of `examples/plugins/rust`, built in a directory that holds nothing else but the published WIT.
pub(crate) fn fixture_built_outside() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let outside = tempfile::tempdir().expect("making a directory");
        let example = repository().join("examples/plugins/rust");
        for file in ["Cargo.toml", "Cargo.lock", "src/lib.rs", "wit/moongate.wit"] {
            let copy = outside.path().join(file);
            fs::create_dir_all(copy.parent().expect("it is in a directory")).expect("making its directory");
            fs::copy(example.join(file), copy).unwrap_or_else(|error| panic!("copying {file}: {error}"));
        }
        cargo_build(outside.path(), &["--locked"]);
        target_dir().join(TARGET).join("release/least_inflight.wasm")
    })
}

/// What plain `cargo build` makes of a project of this name in this directory, as an author would build it.
pub(crate) fn built(directory: &Path, name: &str) -> PathBuf {
    // What it needs is what other fixtures need, so nothing is to be fetched.
    cargo_build(directory, &["--offline"]);
    target_dir().join(TARGET).join("release").join(name.replace('-', "_")).with_extension("wasm")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One for all, so that what they have in common is built once, and once only for all test runs.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins")
}

fn cargo_build(directory: &Path, arguments: &[&str]) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(directory).args(["build", "--release", "--target", TARGET]).args(arguments);
    cargo.arg("--target-dir").arg(target_dir());
    // What the tests were built with (coverage, sanitizers, a linker) is not meant for plugins.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"];
        if foreign.contains(&&*text) || text.starts_with("CARGO_TARGET_") || text.starts_with("CARGO_BUILD_") {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().expect("running cargo");
    assert!(
        output.status.success(),
        "building the plugins in {}:\n{}",
        directory.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}
