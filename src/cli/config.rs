//! `moongate config`: the settings that hold and where each is from, and what may be set at all.

use std::path::Path;
use std::process::ExitCode;

use super::{ConfigOptions, Options, survey_in};
use crate::config::document::{Document, Step, written};
use crate::config::{Config, reference, schema, secret};

/// Where the comments begin, if there is room.
const MARGIN: usize = 48;

/// Prints what was asked for.
pub fn run(options: &ConfigOptions) -> ExitCode {
    if options.what.schema {
        println!("{:#}", schema::schema());
    } else if options.what.reference {
        print!("{}", reference::reference());
    } else {
        match printed(Path::new(""), &options.options) {
            Ok(text) => print!("{text}"),
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The settings as TOML, each with a comment that says where it is from.
fn printed(dir: &Path, options: &Options) -> Result<String, String> {
    let (settings, mistakes) = survey_in(dir, options);
    let (config, path) = settings.filter(|_| mistakes.is_empty()).ok_or_else(|| mistakes.to_string())?;
    let text = toml::to_string(&config.effective()).map_err(|error| format!("writing the settings: {error}"))?;
    let text = secret::lift(&text);
    let all = Document::parse(&text).map_err(|_| "reading the settings that were written".to_owned())?;
    let source = Document::parse(&config.source.text).ok();
    let origin = Origin { options, path: path.as_deref(), source: source.as_ref(), config: &config };

    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut last = 0;
    for (path, line) in all.values() {
        // Of a list on one line, the first of it speaks for all.
        if line != last
            && let Some(text) = lines.get_mut(line - 1)
        {
            *text = format!("{text:MARGIN$} # {}", origin.of(&path));
        }
        last = line;
    }
    let file = match &path {
        Some(path) => format!("# With {}.", path.display()),
        None => "# There is no configuration file.".to_owned(),
    };
    let head = "# The settings that hold. Routes and services have what was written for them; the rest is as in [defaults] and\n\
                # [upstream]. Relative paths start at the directory that this was asked in.\n";
    Ok(format!("{head}{file}\n\n{}\n", lines.join("\n")))
}

/// What settings can be from.
struct Origin<'a> {
    options: &'a Options,
    path: Option<&'a Path>,
    source: Option<&'a Document<'a>>,
    config: &'a Config,
}

impl Origin<'_> {
    fn of(&self, path: &[Step]) -> String {
        let key = written(path);
        if let Some(over) = self.over(&key) {
            return over;
        }
        if let (Some(file), Some(line)) = (self.path, self.source.and_then(|it| it.line_of(path))) {
            return format!("{}:{line}", file.display());
        }
        match &*key {
            "registry.file.path" => "found beside the configuration".into(),
            _ if key.starts_with("auto_routes.") && self.path.is_none() => {
                "default without a configuration file".into()
            }
            _ => "default".into(),
        }
    }

    /// The flag or variable that says it.
    fn over(&self, key: &str) -> Option<String> {
        let Options { config: _, listen, admin, plugins, cache, zookeeper, handover, workers, log, .. } = self.options;
        let Options { zookeeper_auth, admin_token, explain_secret, variables, .. } = self.options;
        let from_variable = zookeeper_auth.is_some() && self.config.registry.zookeeper.is_some();
        let all = [
            ("listen", listen.is_some(), "listen"),
            ("admin", admin.is_some(), "admin"),
            ("plugins.dir", plugins.is_some(), "plugins"),
            ("plugins.cache", cache.is_some(), "cache"),
            ("admin_token", admin_token.is_some(), "admin_token"),
            ("explain.secret", explain_secret.is_some(), "explain_secret"),
            ("registry.zookeeper.servers", zookeeper.is_some(), "zookeeper"),
            ("registry.zookeeper.auth", from_variable, "zookeeper_auth"),
            ("handover", handover.is_some(), "handover"),
            ("workers", workers.is_some(), "workers"),
            ("log.level", log.is_some(), "log"),
        ];
        let (_, _, name) = all.into_iter().find(|(known, given, _)| *given && *known == key)?;
        let variable = format!("MOONGATE_{}", name.to_ascii_uppercase());
        let flag = !variables.contains(&&*variable);
        Some(if flag { format!("flag --{name}") } else { format!("variable {variable}") })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::file;

    #[test]
    fn each_setting_says_where_it_is_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it.toml");
        let text = "admin = '127.0.0.1:1'\nworkers = 3\n[upstream]\nhealth_check = true\n[registry.zookeeper]\n\
                    servers = 'a'\nauth = 'digest:me:hush'\n[[routes]]\npath_prefix = '/a'\nservice = 's'\n\
                    filters = [{ plugin = 'key-auth', config = { keys = { shop = 'hush' } } }]\n";
        fs::write(&file, text).unwrap();
        let options = Options {
            config: Some(file.clone()),
            listen: Some("127.0.0.1:2".parse().unwrap()),
            workers: Some(4),
            variables: vec!["MOONGATE_WORKERS"],
            ..Options::default()
        };
        let printed = printed(dir.path(), &options).unwrap();
        let assert = |start: &str, origin: &str| {
            let line = printed.lines().find(|line| line.starts_with(start));
            let line = line.unwrap_or_else(|| panic!("{start} is not in\n{printed}"));
            assert!(line.ends_with(&format!(" # {origin}")), "{line} is not from {origin}");
        };
        let at = |line: usize| format!("{}:{line}", file.display());
        assert("listen = [\"127.0.0.1:2\"]", "flag --listen");
        assert("workers = 4", "variable MOONGATE_WORKERS");
        assert("admin = \"127.0.0.1:1\"", &at(1));
        assert("drain = \"30s\"", "default");
        assert("unhealthy = 3", &at(4));
        assert("servers = \"a\"", &at(6));
        assert("auth = \"(secret)\"", &at(7));
        assert("path_prefix = \"/a\"", &at(9));
        assert("header_size = \"32KiB\"", "default");
        assert!(!printed.contains("hush") && printed.contains("shop = \"(secret)\""), "{printed}");
    }

    #[test]
    fn what_is_printed_is_what_holds() {
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid/everything.toml");
        let text = fs::read_to_string(&case).unwrap().replace("auth = \"digest:user:password\"\n", "");
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one.toml"), dir.path().join("two.toml"));
        fs::write(&one, text).unwrap();
        let print = |file: &Path| {
            let options = Options { config: Some(file.to_owned()), ..Options::default() };
            printed(dir.path(), &options).unwrap()
        };
        // Secrets have a length, and what is printed in their place is shorter.
        fs::write(&two, print(&one).replace("\"(secret)\"", "\"something that is secret\"")).unwrap();
        let bare = |text: String| {
            text.lines().map(|it| it.split(" # ").next().unwrap().trim_end().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(bare(print(&one))[3..], bare(print(&two))[3..]);
        assert_eq!(file::load(&one).unwrap().routes.len(), file::load(&two).unwrap().routes.len());
    }
}
