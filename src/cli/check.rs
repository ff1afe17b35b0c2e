//! `moongate check`: every mistake in what is configured, without opening anything.

use std::process::ExitCode;

use super::{Options, settings};
use crate::config::file::check_plugins;
use crate::config::{Config, Kind};
use crate::{gateway, registry};

/// Says whether there is a plugin of this name and kind, and whether it accepts this configuration.
type Known = dyn Fn(&str, Kind, &str) -> Result<(), String>;

/// Prints every mistake, or how many routes there are.
pub fn run(options: &Options) -> ExitCode {
    match check(options, plugins) {
        Ok(routes) => {
            println!("ok: {routes} routes");
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            eprintln!("{}", mistakes.join("\n\n"));
            ExitCode::FAILURE
        }
    }
}

/// The plugins that the configuration can use, and what is wrong with the others.
fn plugins(config: &Config) -> (Box<Known>, Vec<String>) {
    let library = match gateway::plugins(config) {
        Ok((_, library, _)) => library,
        Err(error) => return (Box::new(|_, _, _| Ok(())), vec![format!("{error:#}")]),
    };
    let refused = library.status().into_iter().filter_map(|status| {
        let path = config.plugins.dir.join(format!("{}.wasm", status.name));
        Some(format!("{}: {}", path.display(), status.refused?.reason))
    });
    let refused = refused.collect();
    (Box::new(move |name, kind, json| library.check(name, kind, json)), refused)
}

/// The number of explicit routes, or the mistakes, file by file.
fn check(options: &Options, plugins: impl FnOnce(&Config) -> (Box<Known>, Vec<String>)) -> Result<usize, Vec<String>> {
    let (config, _) = settings(options).map_err(|it| vec![it.to_string()])?;
    let (known, mut mistakes) = plugins(&config);
    let of_plugins = check_plugins(&config, &*known);
    // A services file that is not there yet is waited for, so it is no mistake.
    let services = config.registry.file.as_ref().filter(|it| it.path.exists());
    let of_services = services.and_then(|services| registry::file::load(&services.path).err());
    mistakes.extend(
        [Some(of_plugins), of_services].into_iter().flatten().filter(|it| !it.is_empty()).map(|it| it.to_string()),
    );
    if mistakes.is_empty() { Ok(config.routes.len()) } else { Err(mistakes) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn mistakes_of_all_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { config: Some(dir.path().join("it.toml")), ..Options::default() };
        let services = dir.path().join("services.toml");
        fs::write(options.config.as_ref().unwrap(), "[[routes]]\npath_prefix = '/a'\nservice = 'a'\n").unwrap();
        let good = |_: &Config| -> (Box<Known>, Vec<String>) { (Box::new(|_, _, _| Ok(())), Vec::new()) };
        let bad = |_: &Config| -> (Box<Known>, Vec<String>) {
            (Box::new(|name, _, _| Err(format!("no {name}"))), vec!["x.wasm: bad".into()])
        };
        assert_eq!(check(&options, good).unwrap(), 1);
        fs::write(services, "service = 1").unwrap();
        let told = check(&options, bad).unwrap_err();
        let wanted = ["x.wasm: bad", "no round-robin", "unknown key \"service\"; did you mean \"services\"?"];
        assert_eq!(told.len(), wanted.len(), "{told:?}");
        for (told, wanted) in told.iter().zip(wanted) {
            assert!(told.contains(wanted), "{told}");
        }
    }
}
