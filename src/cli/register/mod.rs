//! `moongate register`: a service announces itself, for as long as its command runs or its check passes.
//!
//! The command is started first, and found as soon as it serves; when it is to end it is forgotten first, and told then. So
//! nobody is sent to an endpoint that is not there yet, or not any more. ZooKeeper is no condition for the command to run.
//!
//! [`process`] runs the command, [`ready`] asks whether it serves, and what happens in ZooKeeper is
//! [`crate::registry::zookeeper::registrar`]'s.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use self::process::{Process, Signals, asks_for_the_end};
use self::ready::{Check, Pace};
use crate::config::log::Level;
use crate::config::values::{Time, ZnodePath};
use crate::config::{self, Log, Root, Roots, Secret, Servers, ServiceName};
use crate::logging;
use crate::registry::zookeeper::registrar::{Announcement, Wish, announce, own_address};

mod process;
mod ready;

/// How long ZooKeeper may take to confirm that the endpoint is gone. Container engines kill after ten seconds.
const WITHDRAWAL: Duration = Duration::from_secs(3);

/// The credentials' variable; not passed on to the command.
const AUTH: &str = "MOONGATE_ZOOKEEPER_AUTH";

/// What a shell answers for a command that it cannot run, and for one that is not there.
const CANNOT_RUN: [u8; 2] = [126, 127];

const EXAMPLES: &str = "\
Examples:
  moongate register --service shop --address 10.0.0.7:8080 -- ./shop --port 8080
  moongate register --service shop --address auto:8080 --weight 3 --zone eu-1 --tag blue \\
      --check http://127.0.0.1:8080/health --check-interval 2s -- java -jar shop.jar
  moongate register --service db --address 10.0.0.9:5432 --check tcp://127.0.0.1:5432

As the first process of a container:
  ENTRYPOINT [\"moongate\", \"register\", \"--service\", \"shop\", \"--address\", \"auto:8080\", \"--\", \"/shop\"]

On SIGTERM, SIGINT and SIGQUIT the endpoint is deregistered, and the command gets the signal after --linger. The exit \
status is the command's, or 128 and the number of the signal that ended it. MOONGATE_ZOOKEEPER_AUTH holds the credentials, \
such as digest:user:password.";

/// What to announce, and for how long.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct RegisterOptions {
    /// The service that it is an endpoint of
    #[arg(long, value_name = "NAME")]
    service: ServiceName,
    /// Where it is reached; auto:PORT: at the address from which this machine reaches ZooKeeper
    #[arg(long, value_name = "IP:PORT")]
    address: At,
    /// The ZooKeeper ensemble, as in a:2181,b:2181/chroot [default: 127.0.0.1:2181] [env: MOONGATE_ZOOKEEPER]
    #[arg(long, value_name = "HOSTS")]
    pub(super) zookeeper: Option<Servers>,
    /// The znode whose children are services
    #[arg(long, value_name = "PATH", default_value = "/services")]
    root: ZnodePath,
    /// Its share of the traffic, relative to the others of the service, 0 to 65535
    #[arg(long, value_name = "N")]
    weight: Option<u16>,
    /// Where it runs
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// A label without a value; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// A label; may be given several times
    #[arg(long = "attr", value_name = "NAME=VALUE", value_parser = attribute)]
    attrs: Vec<(String, String)>,
    /// Who registers; what an earlier process of the same id has left behind is replaced [default: the host's name]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Registered only while this passes: http://HOST:PORT/PATH (status 200 to 399), https://…, or tcp://HOST:PORT
    #[arg(long, value_name = "URL")]
    check: Option<Check>,
    /// From one check to the next
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "check")]
    check_interval: Time,
    /// How long a check may take
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "check")]
    check_timeout: Time,
    /// Failed checks in a row after which it is deregistered
    #[arg(long, value_name = "N", default_value = "2", requires = "check", value_parser = clap::value_parser!(u32).range(1..))]
    check_failures: u32,
    /// Register at once; without it and without a check, as soon as a connection to the address opens
    #[arg(long, conflicts_with = "check")]
    no_wait: bool,
    /// How long the command goes on serving after it was deregistered, before it gets the signal
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// After how long a silence ZooKeeper takes it for dead
    #[arg(long, value_name = "TIME", default_value = "10s")]
    session_timeout: Time,
    /// What to run; without it, registered until a signal comes
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Only as a variable: everyone on the machine can read a command line.
    #[arg(skip)]
    pub(super) auth: Option<Secret>,
    /// Only as the variable `MOONGATE_LOG`.
    #[arg(skip)]
    pub(super) log: Option<Level>,
}

/// Where an endpoint is reached.
#[derive(Clone, Copy, Debug)]
enum At {
    Known(SocketAddr),
    /// At the address that ZooKeeper sees.
    Own(u16),
}

impl std::str::FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<At, String> {
        let port = |at: At, port: u16| if port == 0 { Err(format!("{text:?} has no port")) } else { Ok(at) };
        if let Some(own) = text.strip_prefix("auto:").and_then(|it| it.parse().ok()) {
            return port(At::Own(own), own);
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() => {
                Err(format!("{text:?} is where one listens, not where one is reached"))
            }
            Ok(address) => port(At::Known(address), address.port()),
            Err(_) => Err(format!("{text:?} is not an address like \"10.0.0.7:8080\" or \"auto:8080\"")),
        }
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not like name=value")),
    }
}

/// Announces until the command ends or a signal comes.
pub fn run(options: RegisterOptions) -> ExitCode {
    logging::start(&Log { level: options.log.clone().unwrap_or_default(), ..Log::default() });
    let mut code = 0;
    let outcome = super::block_on(async {
        code = register(options).await?;
        Ok(())
    });
    if code == 0 { outcome } else { ExitCode::from(code) }
}

/// What [`run`] ends with.
async fn register(options: RegisterOptions) -> Result<u8> {
    // Before there is a command that they could be for.
    let mut signals = Signals::catch()?;
    let (config, linger) = (zookeeper(&options), options.linger);
    let mut process = match &*options.command {
        [] => None,
        command => match Process::start(command, &[AUTH]) {
            Ok(process) => Some(process),
            Err(error) => {
                eprintln!("moongate: running {}: {error}", command[0]);
                return Ok(CANNOT_RUN[usize::from(error.kind() == std::io::ErrorKind::NotFound)]);
            }
        },
    };

    let wishes = watch::Sender::new(Wish::Absent);
    let (told, mut there) = watch::channel(false);
    tokio::spawn(follow(options, config, wishes.clone(), told));
    let mut impatient = false;
    loop {
        let signal = tokio::select! {
            // A command that has ended needs no signal any more.
            biased;
            code = ended(&mut process) => {
                tracing::info!(code, "the command ended");
                withdraw(&wishes, &mut there).await;
                return Ok(code);
            }
            signal = signals.next() => signal,
        };
        if asks_for_the_end(signal) && !impatient {
            // Whoever asks again does not want to wait.
            impatient = true;
            tracing::info!(?signal, ?linger, "deregistering first");
            let runs = process.is_some();
            let forgotten = async {
                withdraw(&wishes, &mut there).await;
                if runs {
                    sleep(linger).await;
                }
            };
            tokio::select! {
                biased;
                code = ended(&mut process) => {
                    withdraw(&wishes, &mut there).await;
                    return Ok(code);
                }
                () = forgotten => {}
                _ = signals.next_end() => {}
            }
        }
        match &process {
            Some(process) => process.send(signal),
            None if asks_for_the_end(signal) => return Ok(0),
            None => {}
        }
    }
}

/// Announces what the options say, while it is there.
async fn follow(
    options: RegisterOptions,
    config: config::ZooKeeper,
    wishes: watch::Sender<Wish>,
    told: watch::Sender<bool>,
) {
    let announcement = loop {
        match announcement(&options, &config).await {
            Ok(announcement) => break announcement,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "nothing to announce yet; trying again");
                sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let (address, wished) = (announcement.address, wishes.subscribe());
    let ready = async {
        match options.check {
            Some(check) => {
                let [interval, timeout] = [options.check_interval.0, options.check_timeout.0];
                ready::follow(check, Pace { interval, timeout, failures: options.check_failures }, wishes).await;
            }
            None if options.no_wait => {
                Wish::Present.make(&wishes);
            }
            None => ready::wait(address, wishes).await,
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        never = announce(config, announcement, wished, told) => never,
        () = ready => {}
    }
}

async fn ended(process: &mut Option<Process>) -> u8 {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// Takes the endpoint out of ZooKeeper, or gives up after a while: it is tried again as long as the command runs.
async fn withdraw(wishes: &watch::Sender<Wish>, there: &mut watch::Receiver<bool>) {
    Wish::Ended.make(wishes);
    if timeout(WITHDRAWAL, there.wait_for(|there| !there)).await.is_err() {
        tracing::warn!(waited = ?WITHDRAWAL, "ZooKeeper has not confirmed that the endpoint is gone; it will go with the session");
    }
}

fn zookeeper(options: &RegisterOptions) -> config::ZooKeeper {
    let defaults = config::ZooKeeper::default();
    config::ZooKeeper {
        servers: options.zookeeper.clone().unwrap_or(defaults.servers),
        root: Roots(vec![Root::at(&options.root.0)]),
        session_timeout: options.session_timeout,
        auth: options.auth.clone(),
        ..config::ZooKeeper::default()
    }
}

async fn announcement(options: &RegisterOptions, config: &config::ZooKeeper) -> Result<Announcement> {
    let address = match options.address {
        At::Known(address) => address,
        At::Own(port) => {
            let address: IpAddr = own_address(&config.servers).await?;
            SocketAddr::new(address, port)
        }
    };
    let mut attrs: BTreeMap<String, String> = options.attrs.iter().cloned().collect();
    attrs.extend(options.weight.map(|weight| ("weight".into(), weight.to_string())));
    attrs.extend(options.zone.clone().map(|zone| ("zone".into(), zone)));
    let id = match &options.id {
        Some(id) => id.clone(),
        None => host_name().context("reading the host's name, which --id could stand for")?,
    };
    Ok(Announcement { service: options.service.clone(), address, id, tags: options.tags.clone(), attrs })
}

/// In a container it is the container's id, which is what Registrator writes there.
fn host_name() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_where_one_is_reached() {
        assert!(matches!("10.0.0.7:80".parse(), Ok(At::Known(address)) if address.port() == 80));
        assert!(matches!("[::1]:80".parse::<At>(), Ok(At::Known(_))));
        assert!(matches!("auto:80".parse(), Ok(At::Own(80))));
        for text in
            ["", "0.0.0.0:80", "[::]:80", "10.0.0.7", "10.0.0.7:0", "auto:0", "auto:x", "shop:80", "224.0.0.1:80"]
        {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn attributes_have_a_name() {
        assert_eq!(attribute("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(attribute("a=").unwrap(), ("a".into(), String::new()));
        assert!(attribute("a").is_err() && attribute("=b").is_err());
    }
}
