//! The command line, and what it makes of flags, variables, the file and the defaults: a flag beats a variable beats
//! the file beats the default.
//!
//! What the commands do is elsewhere, but for [`mod@check`].

use std::cell::RefCell;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::log::Level;
use crate::config::mistakes::Mistakes;
use crate::config::values::{parse_address, parse_workers};
use crate::config::{AutoRoutes, Config, Listen, Secret, Servers, ServicesFile, admin, file};

pub mod bench;
pub mod check;
pub mod compile;
pub mod config;
pub mod demo;
mod examples;
pub mod healthcheck;
pub mod inspect;
pub mod new;
pub mod register;
pub mod run;
pub mod shell;
pub mod status;
mod rig;
mod subject;
pub mod test;

/// The configuration that is read if none is named and it exists.
const CONFIG: &str = "moongate.toml";
/// The registry that is read if none is configured and it exists, beside the configuration.
const SERVICES: &str = "services.toml";

/// What to tell whoever runs a gateway for which no registry is configured and none found.
pub const NO_SERVICES: &str = "there are no services: write services.toml, or name a registry with --zookeeper or in \
    [registry.zookeeper] or [registry.file] of moongate.toml";

/// An HTTP gateway whose balancers and filters are WebAssembly plugins and whose services live in ZooKeeper.
#[derive(Debug, Parser)]
#[command(name = "moongate", version, args_conflicts_with_subcommands = true, after_help = examples::MOONGATE)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: Options,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the gateway; what happens without a command, too
    #[command(after_help = examples::RUN)]
    Run(Options),
    /// Run the gateway with two sample services on loopback, nothing else needed
    #[command(after_help = examples::DEMO)]
    Demo(DemoOptions),
    /// Load configuration and plugins and tell every mistake; opens nothing
    #[command(after_help = examples::CHECK)]
    Check(Options),
    /// Register a service in ZooKeeper, for as long as a command runs or a check passes
    Register(Box<register::RegisterOptions>),
    /// Tell the settings that hold, and where each is from
    #[command(after_help = examples::CONFIG)]
    Config(ConfigOptions),
    /// Ask a running gateway how it is
    #[command(after_help = examples::STATUS)]
    Status(StatusOptions),
    /// Look at plugins
    #[command(after_help = examples::PLUGIN)]
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Ask the gateway's admin API whether it lives; for container engines, which have no other tool in the image
    #[command(after_help = examples::HEALTHCHECK)]
    Healthcheck {
        /// The admin API [env: MOONGATE_ADMIN]
        #[arg(long, value_name = "ADDR", value_parser = parse_address)]
        admin: Option<SocketAddr>,
        /// Ask whether it is ready for requests: plugins loaded, registries read, not stopping
        #[arg(long)]
        ready: bool,
    },
    /// Write what lets a shell complete this command
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell: bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(after_help = examples::MAN)]
    Man {
        /// The directory that gets a page for each command; without it the main page is printed
        dir: Option<PathBuf>,
    },
    /// Run one of the demo's sample services by itself
    #[command(hide = true)]
    Sample {
        /// What it calls itself
        #[arg(long, default_value = "service_1")]
        name: String,
        /// Where it is served
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", value_parser = parse_address)]
        listen: SocketAddr,
    },
}

/// What to do with a plugin.
#[derive(Clone, Debug, Subcommand)]
pub enum PluginCommand {
    /// Tell what a plugin is, or why it cannot be used
    #[command(after_help = examples::INSPECT)]
    Inspect {
        /// The WebAssembly file
        file: PathBuf,
    },
    /// Write the project of a new plugin, ready to be built
    #[command(after_help = examples::NEW)]
    New(new::NewOptions),
    /// Try a plugin in the real host, against what every plugin must bear
    #[command(after_help = examples::TEST)]
    Test(test::TestOptions),
    /// Measure what a plugin costs, next to the bundled one of its kind
    #[command(after_help = examples::BENCH)]
    Bench(bench::BenchOptions),
    /// Fill a cache with the bundled plugins, compiled, and with files
    Compile(compile::CompileOptions),
}

/// What overrides the file. Each is also a variable: `MOONGATE_` and the flag in capitals.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// The configuration [default: moongate.toml if it exists] [env: MOONGATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where plain requests are taken, several with commas [default: 0.0.0.0:8080] [env: MOONGATE_LISTEN]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Listen>,
    /// Where the admin API is served [default: 127.0.0.1:9900] [env: MOONGATE_ADMIN]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub admin: Option<SocketAddr>,
    /// The directory of plugins [default: plugins] [env: MOONGATE_PLUGINS]
    #[arg(long, value_name = "DIR")]
    pub plugins: Option<PathBuf>,
    /// A directory for compiled plugins [env: MOONGATE_CACHE]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// A ZooKeeper ensemble, as in a:2181,b:2181/chroot [env: MOONGATE_ZOOKEEPER]
    #[arg(long, value_name = "HOSTS")]
    pub zookeeper: Option<Servers>,
    /// The socket at which the next gateway takes over from this one [env: MOONGATE_HANDOVER]
    #[arg(long, value_name = "PATH")]
    pub handover: Option<PathBuf>,
    /// Worker threads, 0: one for each core [default: 0] [env: MOONGATE_WORKERS]
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    pub workers: Option<usize>,
    /// How much is logged: error, warn, info, debug, or info,moongate::registry=debug [default: info] [env: MOONGATE_LOG]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,
    /// Only as the variable `MOONGATE_ZOOKEEPER_AUTH`: everyone on the machine can read a command line.
    #[arg(skip)]
    pub zookeeper_auth: Option<Secret>,
    /// Only as the variable `MOONGATE_ADMIN_TOKEN`, for the same reason.
    #[arg(skip)]
    pub admin_token: Option<Secret>,
    /// Only as the variable `MOONGATE_EXPLAIN_SECRET`; turns `[explain]` on.
    #[arg(skip)]
    pub explain_secret: Option<Secret>,
    /// The keys that variables say, and not flags.
    #[arg(skip)]
    pub variables: Vec<&'static str>,
}

/// What is to be told of the settings.
#[derive(Args, Clone, Debug)]
pub struct ConfigOptions {
    /// What to tell.
    #[command(flatten)]
    pub what: What,
    /// What overrides the file.
    #[command(flatten)]
    pub options: Options,
}

/// What `moongate config` tells: one of these.
#[derive(Args, Clone, Debug, Default)]
#[group(required = true, multiple = false)]
pub struct What {
    /// The settings that hold, as TOML, and where each is from: a flag, a variable, a line of the file, or the default
    #[arg(long)]
    pub print: bool,
    /// The JSON Schema of moongate.toml, for editors
    #[arg(long)]
    pub schema: bool,
    /// Every key with its default and its meaning, as Markdown
    #[arg(long)]
    pub reference: bool,
}

/// How a gateway is asked.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusOptions {
    /// The admin API [default: 127.0.0.1:9900] [env: MOONGATE_ADMIN]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub admin: Option<SocketAddr>,
    /// As JSON, for programs
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
    /// Again every second, until it is interrupted
    #[arg(long)]
    pub watch: bool,
    /// Only as the variable `MOONGATE_ADMIN_TOKEN`: everyone on the machine can read a command line.
    #[arg(skip)]
    pub token: Option<Secret>,
}

/// What can be said of a demonstration.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoOptions {
    /// Where requests are taken, several with commas [env: MOONGATE_LISTEN]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Listen>,
    /// Where the admin API is served [env: MOONGATE_ADMIN]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub admin: Option<SocketAddr>,
    /// The directory of plugins [env: MOONGATE_PLUGINS]
    #[arg(long, value_name = "DIR")]
    pub plugins: Option<PathBuf>,
    /// How much is logged [default: info] [env: MOONGATE_LOG]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<Level>,
}

/// What this process was asked for. Ends it with 2 if that cannot be understood, and with 0 after `--help`.
pub fn command() -> Command {
    parse(std::env::args_os(), &|name| std::env::var_os(name)).unwrap_or_else(|error| error.exit())
}

/// The same for any arguments (the first is the program's name) and variables.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Command, clap::Error> {
    let line = CommandLine::try_parse_from(arguments)?;
    let mut command = line.command.unwrap_or(Command::Run(line.options));
    let variables = Variables { all: variables, used: RefCell::default() };
    match &mut command {
        Command::Run(options) | Command::Check(options) | Command::Config(ConfigOptions { options, .. }) => {
            variables.path(&mut options.config, "MOONGATE_CONFIG");
            variables.value(&mut options.listen, "MOONGATE_LISTEN", str::parse)?;
            variables.value(&mut options.admin, "MOONGATE_ADMIN", parse_address)?;
            variables.path(&mut options.plugins, "MOONGATE_PLUGINS");
            variables.path(&mut options.cache, "MOONGATE_CACHE");
            variables.value(&mut options.zookeeper, "MOONGATE_ZOOKEEPER", str::parse)?;
            variables.path(&mut options.handover, "MOONGATE_HANDOVER");
            variables.value(&mut options.workers, "MOONGATE_WORKERS", parse_workers)?;
            let secret = |text: &str| Ok(Secret(text.to_owned()));
            variables.value(&mut options.zookeeper_auth, "MOONGATE_ZOOKEEPER_AUTH", secret)?;
            variables.value(&mut options.admin_token, "MOONGATE_ADMIN_TOKEN", secret)?;
            variables.value(&mut options.explain_secret, "MOONGATE_EXPLAIN_SECRET", secret)?;
            variables.value(&mut options.log, "MOONGATE_LOG", str::parse)?;
            options.variables = variables.used.take();
        }
        Command::Demo(options) => {
            variables.value(&mut options.listen, "MOONGATE_LISTEN", str::parse)?;
            variables.value(&mut options.admin, "MOONGATE_ADMIN", parse_address)?;
            variables.path(&mut options.plugins, "MOONGATE_PLUGINS");
            variables.value(&mut options.log, "MOONGATE_LOG", str::parse)?;
        }
        Command::Healthcheck { admin, .. } => variables.value(admin, "MOONGATE_ADMIN", parse_address)?,
        Command::Register(options) => {
            variables.value(&mut options.zookeeper, "MOONGATE_ZOOKEEPER", str::parse)?;
            let secret = |text: &str| Ok(Secret(text.to_owned()));
            variables.value(&mut options.auth, "MOONGATE_ZOOKEEPER_AUTH", secret)?;
            variables.value(&mut options.log, "MOONGATE_LOG", str::parse)?;
        }
        Command::Status(options) => {
            variables.value(&mut options.admin, "MOONGATE_ADMIN", parse_address)?;
            let secret = |text: &str| Ok(Secret(text.to_owned()));
            variables.value(&mut options.token, "MOONGATE_ADMIN_TOKEN", secret)?;
        }
        Command::Plugin(_) | Command::Sample { .. } | Command::Completions { .. } | Command::Man { .. } => {}
    }
    Ok(command)
}

/// The environment. Not read by clap, whose message for a bad value names the flag that nobody gave. An empty
/// variable counts as none, as compose files and units leave them.
struct Variables<'a> {
    all: &'a dyn Fn(&str) -> Option<OsString>,
    /// Those that said something.
    used: RefCell<Vec<&'static str>>,
}

impl Variables<'_> {
    fn path(&self, slot: &mut Option<PathBuf>, name: &'static str) {
        if slot.is_none() {
            *slot = (self.all)(name).filter(|it| !it.is_empty()).map(PathBuf::from);
            self.used.borrow_mut().extend(slot.as_ref().map(|_| name));
        }
    }

    fn value<T>(
        &self,
        slot: &mut Option<T>,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), clap::Error> {
        let Some(value) = (self.all)(name).filter(|it| slot.is_none() && !it.is_empty()) else { return Ok(()) };
        let value = value.to_str().ok_or_else(|| "it is not UTF-8".to_owned()).and_then(parse);
        let usage = |why| {
            let message = format!("invalid value for the variable {name}: {why}");
            CommandLine::command().error(ErrorKind::ValueValidation, message)
        };
        *slot = Some(value.map_err(usage)?);
        self.used.borrow_mut().push(name);
        Ok(())
    }
}

/// The configuration to run with, and the file it is from, if any. To be called again when that file changes.
pub fn settings(options: &Options) -> Result<(Config, Option<PathBuf>), Mistakes> {
    let (settings, mistakes) = survey_in(Path::new(""), options);
    settings.filter(|_| mistakes.is_empty()).ok_or(mistakes)
}

/// What can be understood of the settings, and what is wrong with the file.
fn survey_in(dir: &Path, options: &Options) -> (Option<(Config, Option<PathBuf>)>, Mistakes) {
    let path = options.config.clone().or_else(|| Some(dir.join(CONFIG)).filter(|it| it.exists()));
    let (config, mistakes) = match &path {
        Some(path) => file::survey(path),
        // Without a file there is nobody who could have written a route.
        None => {
            let config = Config { auto_routes: Some(AutoRoutes::default()), ..Config::default() };
            (Some(config), Mistakes::default())
        }
    };
    let config = config.map(|config| layered(config, path.as_deref(), dir, options));
    let mut mistakes = mistakes;
    mistakes.all.extend(config.iter().flat_map(admin::mistakes));
    (config.map(|config| (config, path)), mistakes)
}

/// With what the command line and the environment say instead.
fn layered(mut config: Config, path: Option<&Path>, dir: &Path, options: &Options) -> Config {
    let Options { config: _, listen, admin, plugins, cache, zookeeper, handover, workers, log, .. } = options.clone();
    let Options { zookeeper_auth, admin_token, explain_secret, .. } = options.clone();
    // Only the plain addresses: what a flag cannot say (certificates) it should not take away either.
    config.listen = listen.unwrap_or(config.listen);
    config.admin = admin.unwrap_or(config.admin);
    config.plugins.dir = plugins.unwrap_or(config.plugins.dir);
    config.plugins.cache = cache.or(config.plugins.cache);
    config.handover = handover.or(config.handover);
    config.workers = workers.unwrap_or(config.workers);
    config.log.level = log.unwrap_or(config.log.level);
    if let Some(servers) = zookeeper {
        config.registry.zookeeper.get_or_insert_default().servers = servers;
    }
    if let (Some(zookeeper), Some(auth)) = (&mut config.registry.zookeeper, zookeeper_auth) {
        zookeeper.auth = Some(auth);
        zookeeper.auth_file = None;
    }
    config.admin_token = admin_token.or(config.admin_token);
    if explain_secret.is_some() {
        config.explain.get_or_insert_default().secret = explain_secret;
    }
    if config.registry.zookeeper.is_none() && config.registry.file.is_none() {
        let beside = path.and_then(Path::parent).unwrap_or(dir).join(SERVICES);
        config.registry.file = Some(ServicesFile { path: beside }).filter(|it| it.path.exists());
    }
    config
}

/// Runs the control side on this thread.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("starting the runtime").and_then(|runtime| {
        let outcome = runtime.block_on(work);
        // What still runs is a plugin being compiled, which nobody waits for any more.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moongate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings_for(dir: &Path, options: &Options) -> Result<(Config, Option<PathBuf>), Mistakes> {
        let (settings, mistakes) = survey_in(dir, options);
        settings.filter(|_| mistakes.is_empty()).ok_or(mistakes)
    }

    fn line(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Command, clap::Error> {
        let arguments = std::iter::once("moongate").chain(arguments.iter().copied()).map(OsString::from);
        parse(arguments, &|name| variables.iter().find(|it| it.0 == name).map(|it| it.1.into()))
    }

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Options {
        match line(arguments, variables).unwrap() {
            Command::Run(options) => options,
            other => panic!("not run: {other:?}"),
        }
    }

    fn port(options: &Options, dir: &Path) -> u16 {
        settings_for(dir, options).unwrap().0.listen.0[0].port()
    }

    #[test]
    fn clap_accepts_the_definition() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let variables = [("MOONGATE_LISTEN", "127.0.0.1:2")];
        assert_eq!(port(&run(&[], &[]), dir.path()), 8080);
        fs::write(dir.path().join(CONFIG), "listen = '127.0.0.1:1'").unwrap();
        assert_eq!(port(&run(&[], &[]), dir.path()), 1);
        assert_eq!(port(&run(&[], &[("MOONGATE_LISTEN", "")]), dir.path()), 1);
        assert_eq!(port(&run(&[], &variables), dir.path()), 2);
        assert_eq!(port(&run(&["--listen", "127.0.0.1:3"], &variables), dir.path()), 3);
        assert_eq!(port(&run(&["run", "--listen", "127.0.0.1:3"], &variables), dir.path()), 3);
    }

    #[test]
    fn every_flag_has_its_variable_and_both_arrive() {
        let values = [
            ("config", "c.toml"),
            ("listen", "127.0.0.1:1,127.0.0.1:2"),
            ("admin", "127.0.0.1:3"),
            ("plugins", "p"),
            ("cache", "k"),
            ("zookeeper", "a:2181,b/chroot"),
            ("handover", "h.sock"),
            ("workers", "4"),
            ("log", "warn,moongate::registry=debug"),
        ];
        let mut flags = vec!["run".to_owned()];
        flags.extend(values.iter().flat_map(|it| [format!("--{}", it.0), it.1.to_owned()]));
        let mut flags = run(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        let names = values.map(|it| (format!("MOONGATE_{}", it.0.to_uppercase()), it.1));
        let variables = run(&[], &names.each_ref().map(|it| (it.0.as_str(), it.1)));
        assert!(flags.variables.is_empty() && variables.variables.len() == values.len());
        flags.variables.clone_from(&variables.variables);
        assert_eq!(format!("{flags:?}"), format!("{variables:?}"));
        assert_eq!(flags.listen.unwrap().0.len(), 2);
        assert!(flags.config.is_some() && flags.admin.is_some() && flags.plugins.is_some() && flags.cache.is_some());
        assert!(flags.zookeeper.is_some() && flags.handover.is_some() && flags.workers == Some(4));
    }

    #[test]
    fn the_examples_are_commands() {
        for example in examples::ALL {
            // Up to a comment, or to where another command begins.
            let shown = example.split(['#', '|', '>', '&']).next().unwrap();
            let words: Vec<&str> = shown.split_whitespace().skip_while(|it| *it != "moongate").skip(1).collect();
            let words: Vec<&str> = match words.iter().position(|it| it.starts_with('\'')) {
                Some(at) => [&words[..at], &["{}"]].concat(),
                None => words,
            };
            assert!(self::line(&words, &[]).is_ok(), "{example}: {}", self::line(&words, &[]).unwrap_err());
        }
    }

    #[test]
    fn a_bad_value_is_a_usage_error_that_names_it() {
        let flag = line(&["--listen", "here"], &[]).unwrap_err();
        assert_eq!(flag.exit_code(), 2);
        assert!(flag.to_string().contains("--listen") && flag.to_string().contains("here"), "{flag}");
        let variable = line(&[], &[("MOONGATE_WORKERS", "many")]).unwrap_err();
        assert_eq!(variable.exit_code(), 2);
        let text = variable.to_string();
        assert!(text.contains("MOONGATE_WORKERS") && text.contains("many"), "{text}");
        assert_eq!(line(&["--colour"], &[]).unwrap_err().exit_code(), 2);
        assert_eq!(line(&["--help"], &[]).unwrap_err().exit_code(), 0);
        assert!(line(&["plugin", "inspect"], &[]).is_err());
        assert!(matches!(line(&["plugin", "inspect", "x.wasm"], &[]), Ok(Command::Plugin(_))));
        for (arguments, words) in [
            (&["plugin", "new", "it", "--kind", "gizmo", "--lang", "rust"][..], "neither \"balancer\" nor \"filter\""),
            (&["plugin", "new", "it", "--kind", "filter", "--lang", "cobol"], "there is no template in \"cobol\""),
            (&["plugin", "new", "a/b", "--kind", "filter", "--lang", "rust"], "is not a plugin's name"),
            (&["plugin", "test", "x.wasm", "--config", "{"], "it is not JSON"),
            (&["plugin", "bench", "x.wasm", "--config", "[]"], "no object"),
        ] {
            let told = line(arguments, &[]).unwrap_err();
            assert!(told.exit_code() == 2 && told.to_string().contains(words), "{told}");
        }
        assert!(matches!(line(&["demo", "--admin", "127.0.0.1:0"], &[]), Ok(Command::Demo(_))));
    }

    #[test]
    fn without_a_file_every_service_has_a_route() {
        let dir = tempfile::tempdir().unwrap();
        let (config, path) = settings_for(dir.path(), &Options::default()).unwrap();
        assert!(path.is_none() && config.auto_routes.is_some());
        assert!(config.registry.file.is_none() && config.registry.zookeeper.is_none());
        fs::write(dir.path().join(CONFIG), "").unwrap();
        let (config, path) = settings_for(dir.path(), &Options::default()).unwrap();
        assert!(path.is_some() && config.auto_routes.is_none());
    }

    #[test]
    fn a_services_file_is_found_unless_a_registry_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(SERVICES), "").unwrap();
        let registry = |options| settings_for(dir.path(), &options).unwrap().0.registry;
        assert_eq!(registry(Options::default()).file.unwrap().path, dir.path().join(SERVICES));
        let named = registry(run(&["--zookeeper", "a"], &[("MOONGATE_ZOOKEEPER_AUTH", "digest:me:secret")]));
        assert!(named.file.is_none());
        let zookeeper = named.zookeeper.unwrap();
        assert_eq!(zookeeper.servers.0, "a");
        assert_eq!(zookeeper.auth.unwrap().0, "digest:me:secret");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let options = run(&["--config", "nowhere/at/all.toml"], &[]);
        let mistakes = settings_for(Path::new(""), &options).unwrap_err();
        assert!(mistakes.to_string().starts_with("nowhere/at/all.toml: reading it: "), "{mistakes}");
    }
}
