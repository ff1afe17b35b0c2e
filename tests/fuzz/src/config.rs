//! The configuration: it loads, or there are mistakes that say where they are.

use std::path::Path;

use moongate::config::file;

use super::services::told;

/// The text of `moongate.toml`.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match file::parse(text, Path::new("moongate.toml")) {
        Ok(config) => {
            assert_eq!(&*config.source.text, text);
            // What a use of a plugin has wrong is told at its place too.
            let refused = file::check_plugins(&config, &|_, _, _| Err("refused".into()));
            assert!(refused.all.iter().all(|it| it.place.is_some() || it.key == "defaults.balancer"), "{refused}");
        }
        Err(mistakes) => told(&mistakes, text),
    }
}
