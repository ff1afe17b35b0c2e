//! `moongate check`: every mistake in what is configured, without opening anything.

use std::process::ExitCode;

use super::{Options, settings};
use crate::config::file::check_plugins;
use crate::config::mistakes::Mistakes;
use crate::config::{Config, Kind};
use crate::registry;

/// Says whether there is a plugin of this name and kind, and whether it accepts this configuration.
pub type Known = dyn Fn(&str, Kind, &str) -> Result<(), String>;

/// Prints every mistake, or how many routes there are. `plugins` loads what the configuration's plugin directory has.
pub fn run(options: &Options, plugins: impl FnOnce(&Config) -> Box<Known>) -> ExitCode {
    match check(options, plugins) {
        Ok(routes) => {
            println!("ok: {routes} routes");
            ExitCode::SUCCESS
        }
        Err(files) => {
            eprintln!("{}", files.iter().map(Mistakes::to_string).collect::<Vec<_>>().join("\n\n"));
            ExitCode::FAILURE
        }
    }
}

/// The number of explicit routes, or the mistakes, file by file.
pub fn check(options: &Options, plugins: impl FnOnce(&Config) -> Box<Known>) -> Result<usize, Vec<Mistakes>> {
    let (config, _) = settings(options).map_err(|it| vec![it])?;
    let mut files = vec![check_plugins(&config, &*plugins(&config))];
    // A services file that is not there yet is waited for, so it is no mistake.
    if let Some(services) = config.registry.file.as_ref().filter(|it| it.path.exists()) {
        files.extend(registry::file::load(&services.path).err());
    }
    files.retain(|it| !it.is_empty());
    if files.is_empty() { Ok(config.routes.len()) } else { Err(files) }
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
        let good = |_: &Config| -> Box<Known> { Box::new(|_, _, _| Ok(())) };
        let bad = |_: &Config| -> Box<Known> { Box::new(|name, _, _| Err(format!("no {name}"))) };
        assert_eq!(check(&options, good).unwrap(), 1);
        fs::write(services, "service = 1").unwrap();
        let files = check(&options, bad).unwrap_err();
        let told: Vec<_> = files.iter().flat_map(|it| &it.all).map(|it| it.message.as_str()).collect();
        assert_eq!(told, ["no round-robin", "unknown key \"service\"; did you mean \"services\"?"]);
    }
}
