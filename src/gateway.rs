//! What starts what, and what ends it.
//!
//! The control side (registries, plugin directory, configuration, publisher, admin API) runs on the calling thread's
//! runtime; each worker has a thread of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::config::file::check_plugins;
use crate::config::mistakes::Mistakes;
use crate::config::{Config, Kind};
use crate::endpoint::standing::Verdicts;
use crate::health;
use crate::plugin::library::{Library, Scanner};
use crate::plugin::{Engine, engine::Limits};
use crate::proxy::metrics;
use crate::publisher::{self, Publisher, Source};
use crate::registry::{self, State, Stats, View};
use crate::server::{self, worker};
use crate::snapshot::Current;
use crate::watch::Watch;

/// How long the start waits for the registries: a gateway without services answers 404 to everybody, and one that
/// never starts answers nobody.
const FIRST_READ: Duration = Duration::from_secs(5);

/// Changes that wait for the publisher. It takes them in milliseconds.
const QUEUE: usize = 64;

/// Where the gateway listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For requests.
    pub listen: Vec<SocketAddr>,
    /// For the admin API.
    pub admin: SocketAddr,
}

impl std::fmt::Display for Addresses {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let listen: Vec<String> = self.listen.iter().map(|address| format!("http://{address}")).collect();
        write!(out, "listening on {}; admin on http://{}", listen.join(" "), self.admin)
    }
}

/// How the configuration is read again, and where it lies.
pub struct Reload {
    /// The file, to be followed; none: only the signal counts.
    pub file: Option<PathBuf>,
    /// Reads everything again.
    pub read: Box<dyn Fn() -> Result<Config, Mistakes> + Send>,
}

/// Plugins as a configuration's directory and limits give them.
///
/// # Errors
/// If the engine or a bundled plugin cannot be started, which no configuration can help.
pub fn plugins(config: &Config) -> Result<(Engine, Library, Scanner)> {
    let workers = workers(config);
    let limits = Limits { memory: config.plugins.memory_limit.0, call: config.plugins.call_timeout.0 };
    let engine = Engine::new(limits)?;
    let mut library = Library::new(engine.clone(), workers)?;
    let mut scanner = Scanner::new(engine.clone(), &config.plugins.dir, workers);
    for change in scanner.scan() {
        let uses = publisher::uses(config).filter(|(plugin, ..)| *plugin == change.name());
        let uses: Vec<(Kind, Arc<str>)> = uses.map(|(_, kind, json)| (kind, json.into())).collect();
        library.apply(change, &uses);
    }
    Ok((engine, library, scanner))
}

fn workers(config: &Config) -> usize {
    match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

/// Runs the gateway until SIGTERM or SIGINT, and lets running requests end. `ready` is called once requests are
/// taken.
///
/// # Errors
/// What kept it from starting. Once it runs, nothing ends it but a signal.
pub async fn run(config: Config, reload: Reload, ready: impl FnOnce(&Addresses)) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;

    let (engine, library, scanner) = plugins(&config)?;
    let mistakes = check_plugins(&config, &|plugin, kind, json| library.check(plugin, kind, json));
    if !mistakes.is_empty() {
        bail!("{mistakes}");
    }

    let workers = workers(&config);
    let mut sockets: Vec<Vec<std::net::TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let mut listen = Vec::new();
    for address in &config.listen.0 {
        let bound = server::listen(*address, workers).with_context(|| format!("listening on {address}"))?;
        listen.push(bound[0].local_addr().context("reading the bound address")?);
        bound.into_iter().zip(&mut sockets).for_each(|(socket, worker)| worker.push(socket));
    }
    let admin_socket =
        tokio::net::TcpListener::bind(config.admin).await.with_context(|| format!("listening on {}", config.admin))?;
    let addresses = Addresses { listen, admin: admin_socket.local_addr().context("reading the bound address")? };

    let (sources, stats) = registries(&config);
    let first_read = async {
        for source in &sources {
            let mut view = source.view.clone();
            // An ended source is one that will never be read.
            let _ = view.wait_for(|view| view.state != State::Starting).await;
        }
    };
    if tokio::time::timeout(FIRST_READ, first_read).await.is_err() {
        tracing::warn!(waited = ?FIRST_READ, "no registry has answered; starting without services");
    }

    let current = Current::default();
    let drain = config.drain.0;
    let (checks, verdicts) = watch::channel(Verdicts::default());
    let publisher = Publisher::new(current.clone(), library, sources, verdicts, config.clone());
    let (plugin_changes, plugins) = mpsc::channel(QUEUE);
    let (configs, new_configs) = mpsc::channel(QUEUE);
    tokio::spawn(health::run(current.clone(), publisher.published(), checks));
    tokio::spawn(scanner.follow(plugin_changes));
    tokio::spawn(follow(reload, config, configs));
    let mut publishing = tokio::spawn(publisher.run(new_configs, plugins));

    let metrics: Vec<Arc<metrics::Worker>> = (0..workers).map(|_| Arc::default()).collect();
    let (stop, stopped) = watch::channel(None);
    let state =
        admin::State { current: current.clone(), workers: metrics.clone(), registries: stats, stop: stopped.clone() };
    tokio::spawn(admin::serve(admin_socket, Arc::new(state)));

    let threads = sockets.into_iter().zip(metrics).enumerate().map(|(index, (listeners, metrics))| {
        let (current, engine, stop) = (current.clone(), engine.clone(), stopped.clone());
        worker::start(worker::Setup { index, listeners, current, engine, metrics, stop })
    });
    let threads = threads.collect::<Result<Vec<_>>>()?;
    ready(&addresses);

    let frozen = tokio::select! {
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
        // Routes that no longer change are a slow outage: whoever watches this process should start it again.
        _ = &mut publishing => true,
    };
    tracing::info!(limit = ?drain, "stopping; running requests may end");
    stop.send_replace(Some(drain));
    for thread in threads {
        // A second signal is for those who do not want to wait.
        let joined = tokio::task::spawn_blocking(move || thread.join());
        tokio::select! {
            joined = joined => joined.context("waiting for a worker")?.map_err(|_| anyhow!("a worker panicked"))?,
            _ = terminate.recv() => bail!("stopped before all requests had ended"),
            _ = interrupt.recv() => bail!("stopped before all requests had ended"),
        }
    }
    ensure!(!frozen, "the publisher ended, which is a mistake in the gateway; please report it");
    Ok(())
}

/// Starts the registries that are configured; the first is believed first.
fn registries(config: &Config) -> (Vec<Source>, Vec<(&'static str, Arc<Stats>)>) {
    let (mut sources, mut all) = (Vec::new(), Vec::new());
    let mut add = |name: &'static str| {
        let (out, view) = watch::channel(View::default());
        let stats = Arc::new(Stats::default());
        sources.push(Source { name, view });
        all.push((name, stats.clone()));
        (out, stats)
    };
    if let Some(file) = &config.registry.file {
        let (out, stats) = add("file");
        tokio::spawn(registry::file::run(file.path.clone(), out, stats));
    }
    if let Some(zookeeper) = &config.registry.zookeeper {
        let (out, stats) = add("zookeeper");
        let zookeeper = zookeeper.clone();
        tokio::spawn(async move { registry::zookeeper::supervise(zookeeper, out, stats).await });
    }
    (sources, all)
}

/// Reads the configuration again when its file changes or SIGHUP comes, and hands on what is good.
async fn follow(reload: Reload, mut config: Config, configs: mpsc::Sender<Config>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let mut watch = reload.file.as_ref().map(|file| {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
        Watch::new(dir)
    });
    let mut refused = None;
    loop {
        let asked = tokio::select! {
            () = changed(&mut watch) => false,
            _ = hangup.recv() => true,
        };
        let text = reload.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let known = text.as_deref() == Some(&*config.source.text) || (text.is_some() && text == refused);
        if known && !asked {
            continue;
        }
        match (reload.read)() {
            Ok(new) => {
                warn_of_restart(&config, &new);
                refused = None;
                config = new.clone();
                if configs.send(new).await.is_err() {
                    return;
                }
            }
            Err(mistakes) => {
                refused = text;
                tracing::error!("configuration refused, the one before stays:\n{mistakes}");
            }
        }
    }
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Says which keys were changed in vain.
fn warn_of_restart(before: &Config, after: &Config) {
    let fixed = |config: &Config| {
        let plugins = &config.plugins;
        [
            ("listen", format!("{:?}", config.listen)),
            ("admin", config.admin.to_string()),
            ("workers", config.workers.to_string()),
            ("registry", format!("{:?}", config.registry)),
            ("plugins.dir", plugins.dir.display().to_string()),
            ("plugins.memory_limit", plugins.memory_limit.0.to_string()),
            ("plugins.call_timeout", format!("{:?}", plugins.call_timeout.0)),
            ("drain", format!("{:?}", config.drain.0)),
        ]
    };
    for ((key, before), (_, after)) in fixed(before).into_iter().zip(fixed(after)) {
        if before != after {
            tracing::warn!(key, "this key takes effect at the next start");
        }
    }
}
