//! `moongate plugin new`: a project that is ready to be built, from the templates that the gateway carries in itself.
//!
//! A template is a folder `templates/LANGUAGE/KIND`. In the names and the texts of its files `my-plugin` stands for the
//! plugin's name, and `my_plugin` for the same as an identifier. What every plugin is written against, `wit/`, is added
//! here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::config::mistakes::nearest;
use crate::config::{Kind, PluginName};

/// Path and text of each file, in the order of the paths.
const TEMPLATES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// What plugins are written against.
const WIT: &str = include_str!("../../wit/moongate.wit");

/// What stands for the name in a template.
const NAME: &str = "my-plugin";
const IDENTIFIER: &str = "my_plugin";

/// Other names that people have for languages.
const ALIASES: [(&str, &str); 4] = [("js", "javascript"), ("py", "python"), ("rs", "rust"), ("ts", "javascript")];

/// What is to be written.
#[derive(Args, Clone, Debug)]
pub struct NewOptions {
    /// What the plugin is to be called
    #[arg(value_parser = name)]
    pub name: String,
    /// What it is to do: balancer or filter
    #[arg(long, value_parser = kind)]
    pub kind: Kind,
    /// What it is to be written in
    #[arg(long, value_name = "LANGUAGE", value_parser = language)]
    pub lang: String,
    /// Where to write it [default: the name, in this directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Writes the project and tells how to go on.
pub fn run(options: &NewOptions) -> ExitCode {
    let dir = options.dir.clone().unwrap_or_else(|| PathBuf::from(&options.name));
    let project = project(TEMPLATES, options);
    match write(&dir, &project) {
        Ok(()) => {
            print!("{}", next(&dir, &project, options));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("moongate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A plugin's name that is one for a package and a file in every language as well.
fn name(text: &str) -> Result<String, String> {
    let name: PluginName = text.parse()?;
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_');
    if !name.0.starts_with(|it: char| it.is_ascii_alphabetic()) || !name.0.chars().all(allowed) {
        return Err(format!(
            "{text:?} is no name for a package: a letter first, then letters, digits, \"-\" and \"_\"; the finished \
             file may be renamed"
        ));
    }
    Ok(text.to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    [Kind::Balancer, Kind::Filter]
        .into_iter()
        .find(|it| it.to_string() == text)
        .ok_or_else(|| format!("{text:?} is neither \"balancer\" nor \"filter\""))
}

/// A language that there are templates for.
fn language(text: &str) -> Result<String, String> {
    language_of(TEMPLATES, text)
}

fn language_of(templates: &[(&str, &str)], text: &str) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    let wanted = ALIASES.iter().find(|it| it.0 == lower).map_or(&*lower, |it| it.1);
    let all: BTreeSet<&str> = templates.iter().filter_map(|(path, _)| Some(path.split_once('/')?.0)).collect();
    if all.contains(wanted) {
        return Ok(wanted.to_owned());
    }
    let near = nearest(wanted, all.iter().copied()).map(|it| format!("; did you mean {it:?}?")).unwrap_or_default();
    let list = all.into_iter().collect::<Vec<_>>().join(", ");
    Err(format!("there is no template in {text:?}{near}; there are: {list}"))
}

/// The files of a project, by their paths in it.
fn project(templates: &[(&str, &str)], options: &NewOptions) -> Vec<(String, String)> {
    let folder = format!("{}/{}/", options.lang, options.kind);
    let identifier = options.name.replace('-', "_");
    // Piece by piece, because the name may have what stands for it within itself.
    let named = |text: &str| {
        let pieces: Vec<String> = text.split(NAME).map(|it| it.replace(IDENTIFIER, &identifier)).collect();
        pieces.join(&options.name)
    };
    let file = |(path, text): &(&str, &str)| {
        let path = named(path.strip_prefix(&folder)?);
        // Git would obey it within the templates, too.
        let path = if path == "gitignore" { ".gitignore".to_owned() } else { path };
        Some((path, named(text)))
    };
    let mut files: Vec<_> = templates.iter().filter_map(file).collect();
    if !files.is_empty() {
        files.push(("wit/moongate.wit".to_owned(), WIT.to_owned()));
    }
    files
}

/// Writes the files.
fn write(dir: &Path, files: &[(String, String)]) -> Result<()> {
    if files.is_empty() {
        bail!("there is no template of this kind in this language");
    }
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => bail!("{} is there already, and is not empty: choose another name or --dir", dir.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("looking at {}", dir.display())),
    }
    for (name, text) in files {
        let path = dir.join(name);
        let written = (|| {
            fs::create_dir_all(path.parent().unwrap_or(dir))?;
            fs::write(&path, text)?;
            if name.ends_with(".sh") { executable(&path) } else { Ok(()) }
        })();
        written.with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn executable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// What to do with the project.
fn next(dir: &Path, files: &[(String, String)], NewOptions { name, kind, .. }: &NewOptions) -> String {
    let has = |wanted: &str| files.iter().any(|(path, _)| path == wanted);
    let build = match () {
        () if has("build.sh") => "./build.sh",
        () if has("Makefile") => "make",
        () if has("package.json") => "npm run build",
        () => "cat README.md",
    };
    // What the filter templates are configured with; the balancers do without.
    let (used, configured) = match kind {
        Kind::Balancer => (format!("balancer = \"{name}\""), ""),
        Kind::Filter => (
            format!("filters = [{{ plugin = \"{name}\", config = {{ name = \"x-env\", value = \"prod\" }} }}]"),
            " --config '{\"name\": \"x-env\", \"value\": \"prod\"}'",
        ),
    };
    let dir = dir.display();
    format!(
        "A {kind} is in {dir}. To build it, to try it, and to drop it into the plugin directory of a gateway:\n\n\
         \x20 (cd {dir} && {build})\n\
         \x20 moongate plugin test {dir}/{name}.wasm{configured}\n\
         \x20 cp {dir}/{name}.wasm plugins/\n\n\
         And in moongate.toml, for all routes:\n\n\
         \x20 [defaults]\n\
         \x20 {used}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &[(&str, &str)] = &[
        ("c/filter/Makefile", "all: my-plugin.wasm"),
        ("rust/balancer/build.sh", "#!/bin/sh\ncp target/my_plugin.wasm my-plugin.wasm\n"),
        ("rust/balancer/gitignore", "/target"),
        ("rust/balancer/src/my_plugin.rs", "//! my-plugin"),
        ("rust/filter/src/lib.rs", ""),
    ];

    fn options(name: &str, kind: Kind, lang: &str) -> NewOptions {
        NewOptions { name: name.into(), kind, lang: lang.into(), dir: None }
    }

    #[test]
    fn names_must_do_in_every_language() {
        for good in ["a", "my-balancer_2", "B"] {
            assert_eq!(name(good).unwrap(), good);
        }
        for (bad, words) in
            [("", "not a plugin's name"), ("a b", "not a plugin's name"), ("../a", "not a plugin's name")]
        {
            assert!(name(bad).unwrap_err().contains(words), "{bad:?}");
        }
        for bad in ["a.b", "2nd", "-x", "_x"] {
            assert!(name(bad).unwrap_err().contains("a letter first"), "{bad:?}");
        }
    }

    #[test]
    fn a_language_is_found_by_its_other_names_and_told_otherwise() {
        let templates = &[("javascript/filter/a", ""), ("rust/filter/a", ""), ("rust/balancer/a", "")];
        for (text, language) in [("rust", "rust"), ("Rust", "rust"), ("js", "javascript"), ("rs", "rust")] {
            assert_eq!(language_of(templates, text).unwrap(), language);
        }
        let told = language_of(templates, "cobol").unwrap_err();
        assert_eq!(told, "there is no template in \"cobol\"; there are: javascript, rust");
        let told = language_of(templates, "rsut").unwrap_err();
        assert!(told.contains("did you mean \"rust\"?"), "{told}");
        assert!(kind("balancer").is_ok() && kind("gizmo").is_err());
    }

    #[test]
    fn the_name_is_put_into_names_and_texts() {
        let files = project(SOME, &options("two-choices", Kind::Balancer, "rust"));
        let paths: Vec<&str> = files.iter().map(|it| &*it.0).collect();
        assert_eq!(paths, ["build.sh", ".gitignore", "src/two_choices.rs", "wit/moongate.wit"]);
        assert_eq!(files[0].1, "#!/bin/sh\ncp target/two_choices.wasm two-choices.wasm\n");
        assert_eq!(files[2].1, "//! two-choices");
        assert!(files[3].1.contains("package moongate:plugin@"));
        let files = project(SOME, &options("my_plugin-x", Kind::Balancer, "rust"));
        assert_eq!(files[0].1, "#!/bin/sh\ncp target/my_plugin_x.wasm my_plugin-x.wasm\n");
        assert!(project(SOME, &options("x", Kind::Balancer, "c")).is_empty());
    }

    #[test]
    fn nothing_is_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("deep/it");
        let files = project(SOME, &options("it", Kind::Balancer, "rust"));
        write(&dir, &files).unwrap();
        assert_eq!(fs::read_to_string(dir.join(".gitignore")).unwrap(), "/target");
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("build.sh"), 0o755);
        assert_eq!(mode(".gitignore") & 0o111, 0);
        let told = format!("{:#}", write(&dir, &files).unwrap_err());
        assert!(told.contains("deep/it is there already, and is not empty"), "{told}");
        assert!(write(&dir.join("build.sh"), &files).is_err(), "a file is no directory");
        let empty = home.path().join("empty");
        fs::create_dir(&empty).unwrap();
        write(&empty, &files).unwrap();
        assert!(write(&home.path().join("none"), &[]).is_err());
        assert!(!home.path().join("none").exists());
    }

    #[test]
    fn what_comes_next_fits_the_project() {
        for (kind, lang, build, used) in [
            (Kind::Balancer, "rust", "(cd it && ./build.sh)", "balancer = \"it\""),
            (Kind::Filter, "c", "(cd it && make)", "filters = [{ plugin = \"it\""),
        ] {
            let options = options("it", kind, lang);
            let told = next(Path::new("it"), &project(SOME, &options), &options);
            assert!(told.contains(build) && told.contains(used) && told.contains("cp it/it.wasm plugins/"), "{told}");
        }
    }

    #[test]
    fn every_template_is_complete() {
        for (path, _) in TEMPLATES {
            let mut parts = path.split('/');
            let language = parts.next().unwrap();
            assert!(kind(parts.next().unwrap()).is_ok() && parts.next().is_some(), "{path} is out of place");
            for kind in [Kind::Balancer, Kind::Filter] {
                let files = project(TEMPLATES, &options("some-name", kind, language));
                assert!(files.len() > 2, "{language} has no {kind}");
                let left = files[..files.len() - 1].iter().find(|it| it.1.contains(NAME) || it.1.contains(IDENTIFIER));
                assert!(left.is_none(), "{left:?}");
                let told = next(Path::new("x"), &files, &options("some-name", kind, language));
                assert!(!told.contains("cat README"), "{language} {kind} has no way to be built that we know");
            }
        }
    }
}
