//! `moongate run`.

use std::process::ExitCode;

use super::{NO_SERVICES, Options, settings};
use crate::gateway::{self, Reload};
use crate::logging;

/// Runs the gateway until a signal comes.
pub fn run(mut options: Options) -> ExitCode {
    let (config, file) = match settings(&options) {
        Ok(settings) => settings,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::FAILURE;
        }
    };
    logging::start(&config.log);
    if config.registry.file.is_none() && config.registry.zookeeper.is_none() {
        tracing::warn!("{NO_SERVICES}");
    }
    // The file that was found stays the one: should it go, that is a mistake, and not the end of its routes.
    options.config = file.clone().or(options.config);
    let read = Box::new(move || settings(&options).map(|(config, _)| config));
    let reload = Reload { file, read };
    super::block_on(gateway::run(config, reload, |addresses| eprintln!("ready: {addresses}")))
}
