//! Compiles the bundled plugins to WebAssembly, and lists the templates of new ones, so that the gateway carries both in
//! itself.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

const TARGET: &str = "wasm32-unknown-unknown";

fn main() {
    for path in ["wit", "plugins", TEMPLATES, "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    if !target_is_installed() {
        fail(&format!("the target {TARGET} is not installed, run `rustup target add {TARGET}`"));
    }
    let names = names(&root);
    // Beside the profiles, so that what one has compiled serves all of them: TARGET/PROFILE/build/PACKAGE/out.
    let target_dir = out.ancestors().nth(4).unwrap_or(&out).join("plugins");
    build(&root, &names, &target_dir);
    let mut list = String::new();
    for name in &names {
        let file = name.replace('-', "_") + ".wasm";
        let built = target_dir.join(TARGET).join("plugin").join(file);
        if let Err(error) = fs::copy(&built, out.join(name).with_extension("wasm")) {
            fail(&format!("copying {}: {error}", built.display()));
        }
        list += &format!("    (\"{name}\", include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.wasm\"))),\n");
    }
    write(&out.join("bundled.rs"), &list);
    write(&out.join("templates.rs"), &templates(&root));
}

/// Writes a list that is included as an expression.
fn write(file: &Path, elements: &str) {
    if let Err(error) = fs::write(file, format!("&[\n{elements}]\n")) {
        fail(&format!("writing {}: {error}", file.display()));
    }
}

/// Where the templates are, as `LANGUAGE/KIND/FILE`.
const TEMPLATES: &str = "templates";

/// What building and testing in a template leaves there.
const LEFTOVERS: [&str; 4] = ["target", "node_modules", "wit", "__pycache__"];

/// The template files, each as its path and its text; nothing without the directory.
fn templates(root: &Path) -> String {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else { continue };
            let leftover = LEFTOVERS.contains(&name) || name.starts_with('.') && name != ".gitignore";
            match path.is_dir() {
                true if !leftover => walk(&path, found),
                false if !leftover && !name.ends_with(".wasm") => found.push(path),
                _ => {}
            }
        }
    }
    let dir = root.join(TEMPLATES);
    let mut found = Vec::new();
    walk(&dir, &mut found);
    found.sort();
    let element = |path: &PathBuf| {
        let name = path.strip_prefix(&dir).ok()?.to_str()?;
        Some(format!("    ({name:?}, include_str!({path:?})),\n"))
    };
    found.iter().filter_map(element).collect()
}

/// Everything in `plugins/` but the SDK.
fn names(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("plugins")) else { fail("there is no directory plugins") };
    let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
    let mut names: Vec<String> =
        entries.flatten().filter(|it| it.path().join("Cargo.toml").exists()).filter_map(name).collect();
    names.retain(|name| name != "sdk");
    names.sort();
    names
}

/// Asks the compiler where the target's libraries are; its own words, when they are missing, are many and unclear.
fn target_is_installed() -> bool {
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let asked = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    asked.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}

/// A cargo of its own, with a target directory of its own because the outer cargo holds the lock of the usual one.
fn build(root: &Path, names: &[String], target_dir: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo.current_dir(root).args(["build", "--locked", "--profile", "plugin", "--target", TARGET, "--target-dir"]);
    cargo.arg(target_dir).args(names.iter().flat_map(|name| ["-p", name]));
    // What the outer build was told is not meant for the plugins: flags for another target, instrumentation for
    // coverage, clippy in place of the compiler, jobs of a jobserver that is not inherited.
    for (name, _) in env::vars_os() {
        let name_text = name.to_string_lossy();
        let profile = name_text.starts_with("CARGO_PROFILE_");
        let target = name_text.starts_with("CARGO_TARGET_") || name_text.starts_with("CARGO_BUILD_");
        if profile || target || FOREIGN.contains(&&*name_text) {
            cargo.env_remove(&name);
        }
    }
    // The same bytes on every machine: panics name source files, and those of dependencies lie in a home directory.
    let mut flags = Vec::new();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    if let Some(home) = home {
        let registry = home.join("registry/src");
        for index in fs::read_dir(registry).into_iter().flatten().flatten() {
            flags.push(format!("--remap-path-prefix={}=", index.path().display()));
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    match cargo.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => fail(&format!("compiling the bundled plugins:\n{}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => fail(&format!("running cargo to compile the bundled plugins: {error}")),
    }
}

const FOREIGN: [&str; 8] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
    "LLVM_PROFILE_FILE",
];

fn fail(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    // Those lines fail the build. A code other than 0 would too, but bury them under a report about this script.
    exit(0)
}
