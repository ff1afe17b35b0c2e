//! The `moongate` command.

use std::process::ExitCode;

use moongate::cli::{self, Command, PluginCommand};

fn main() -> ExitCode {
    match cli::command() {
        Command::Run(options) => cli::run::run(options),
        Command::Demo(options) => cli::demo::run(options),
        Command::Check(options) => cli::check::run(&options),
        Command::Plugin(PluginCommand::Inspect { file }) => cli::inspect::run(&file),
        Command::Plugin(PluginCommand::New(options)) => cli::new::run(&options),
        Command::Plugin(PluginCommand::Test(options)) => cli::test::run(&options),
        Command::Plugin(PluginCommand::Bench(options)) => cli::bench::run(&options),
        Command::Healthcheck { admin } => cli::healthcheck::run(admin),
        Command::Sample { name, listen } => cli::demo::sample(&name, listen),
    }
}
