//! `moongate check`: every mistake in what is configured, without opening anything.

use std::path::Path;
use std::process::ExitCode;

use super::{Options, survey_in};
use crate::config::file::check_plugins;
use crate::config::{Config, Kind};
use crate::tls::Connectors;
use crate::{gateway, publisher, registry};

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
    let (settings, mut mistakes) = survey_in(Path::new(""), options);
    let Some((config, _)) = settings else { return Err(vec![mistakes.to_string()]) };
    let (known, refused) = plugins(&config);
    let mut of_plugins = check_plugins(&config, &*known);
    mistakes.file.clone_from(&of_plugins.file);
    mistakes.all.append(&mut of_plugins.all);
    let (_, mut of_tls, warnings) = gateway::acceptors(&config, &config.all_listeners());
    mistakes.all.append(&mut of_tls.all);
    warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    match Connectors::load(&config) {
        Ok((_, warnings)) => warnings.iter().for_each(|warning| eprintln!("warning: {warning}")),
        Err(refused) => mistakes.all.append(&mut publisher::mistakes_of(&config, &refused).all),
    }
    mistakes.all.sort_by_key(|it| it.place.as_ref().map(|place| (place.line, place.column)));
    // A services file that is not there yet is waited for, so it is no mistake.
    let services = config.registry.file.as_ref().filter(|it| it.path.exists());
    let of_services = services.and_then(|services| registry::file::load(&services.path).err());
    let mut told = refused;
    // Where it is the file's, it is told with its line; but the command line can say an address of the file's too.
    let twice = config.listened_twice().filter(|_| options.listen.is_some());
    told.extend(twice.map(|it| format!("{it} is to be listened on twice")));
    let files = [Some(mistakes), of_services].into_iter().flatten().filter(|it| !it.is_empty());
    told.extend(files.map(|it| it.to_string()));
    if told.is_empty() { Ok(config.routes.len()) } else { Err(told) }
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

    #[test]
    fn mistakes_of_the_file_do_not_hide_those_of_plugins() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it.toml");
        let text = "wokers = 2\nadmin = 'here'\n[[routes]]\npath_prefix = '/a'\nservice = 'a'\nbalancer = 'nobody'\n\
                    [[routes]]\npath_prefix = '/a'\nservice = 'b'\n";
        fs::write(&file, text).unwrap();
        let options = Options { config: Some(file), ..Options::default() };
        let only = |_: &Config| -> (Box<Known>, Vec<String>) {
            let known = |name: &str, _, _: &str| if name == "nobody" { Err("no nobody".to_owned()) } else { Ok(()) };
            (Box::new(known), Vec::new())
        };
        let told = check(&options, only).unwrap_err().join("\n");
        for wanted in [
            "it.toml:1:1: wokers",
            "it.toml:2:9: admin",
            "it.toml:6:12: routes[0].balancer: no nobody",
            "it.toml:7:1: routes[1]",
        ] {
            assert!(told.contains(wanted), "{wanted} is not in\n{told}");
        }
    }
}
