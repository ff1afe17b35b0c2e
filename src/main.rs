//! The `moongate` command.

use std::process::ExitCode;

use moongate::cli::{self, Command, PluginCommand};

fn main() -> ExitCode {
    match cli::command() {
        Command::Run(options) => cli::run::run(options),
        Command::Demo(options) => cli::demo::run(options),
        Command::Check(options) => cli::check::run(&options),
        Command::Register(options) => cli::register::run(*options),
        Command::Config(options) => cli::config::run(&options),
        Command::Status(options) => cli::status::run(&options),
        Command::Completions { shell } => cli::shell::completions(shell),
        Command::Man { dir } => cli::shell::man(dir.as_deref()),
        Command::Plugin(PluginCommand::Inspect { file }) => cli::inspect::run(&file),
        Command::Plugin(PluginCommand::New(options)) => cli::new::run(&options),
        Command::Plugin(PluginCommand::Test(options)) => cli::test::run(&options),
        Command::Plugin(PluginCommand::Bench(options)) => cli::bench::run(&options),
        Command::Plugin(PluginCommand::Compile(options)) => cli::compile::run(&options),
        Command::Healthcheck { admin, ready } => cli::healthcheck::run(admin, ready),
        Command::Sample { name, listen } => cli::demo::sample(&name, listen),
    }
}
