//! What starts what, and what ends it.
//!
//! The control side (registries, plugin directory, configuration, publisher, admin API) runs on the calling thread's
//! runtime; each worker has a thread of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::access::Log;
use crate::admin;
use crate::config::changes::{Change, changes};
use crate::config::file::{check_plugins, mistake_at};
use crate::config::mistakes::Mistakes;
use crate::config::{self, Config, Kind};
use crate::endpoint::standing::Verdicts;
use crate::events::{Events, found};
use crate::fleet;
use crate::fleet::plugins::Pins;
use crate::health;
use crate::logging;
use crate::plugin::library::{Library, Scanner};
use crate::plugin::{Engine, engine::Limits};
use crate::proxy::{Places, metrics};
use crate::publisher::{self, Publisher, Source};
use crate::registry::{self, State, Stats, View};
use crate::server::handover::{self, Offer, Predecessor};
use crate::server::sockets::{Sockets, Spread};
use crate::server::worker;
use crate::snapshot::Current;
use crate::tls::{Acceptor, Connectors, Followed};
use crate::trace;
use crate::watch::Watch;

/// How long the start waits for the registries: a gateway without services answers 404 to everybody, and one that
/// never starts answers nobody.
const FIRST_READ: Duration = Duration::from_secs(5);

/// The same where another gateway serves meanwhile.
const FIRST_READ_BEFORE_HANDOVER: Duration = Duration::from_secs(60);

/// Changes that wait for the publisher. It takes them in milliseconds.
const QUEUE: usize = 64;

/// Where the gateway listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// For requests, and whether with TLS.
    pub listen: Vec<(SocketAddr, bool)>,
    /// For the admin API.
    pub admin: SocketAddr,
}

impl std::fmt::Display for Addresses {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = |(address, tls): &(SocketAddr, bool)| format!("{}://{address}", if *tls { "https" } else { "http" });
        let listen: Vec<String> = self.listen.iter().map(url).collect();
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
/// If the engine cannot be started, or the directory for compiled plugins is not ours.
pub fn plugins(config: &Config) -> Result<(Engine, Library, Scanner)> {
    pinned_plugins(config, Pins::default())
}

/// The same, where only certain versions of some plugins may serve.
fn pinned_plugins(config: &Config, pins: Pins) -> Result<(Engine, Library, Scanner)> {
    let workers = workers(config);
    let limits = Limits { memory: config.plugins.memory_limit.0, call: config.plugins.call_timeout.0 };
    let mut engine = Engine::new(limits)?.standing(config.zone.clone());
    if let Some(dir) = &config.plugins.cache {
        engine = engine.caching(dir)?;
    }
    let mut library = Library::new(engine.clone(), workers, &config.plugins);
    let mut scanner = Scanner::new(engine.clone(), &config.plugins.dir, workers).pinned(pins);
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
    let started = SystemTime::now();
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;

    let all = config::admin::mistakes(&config);
    if !all.is_empty() {
        bail!("{}", Mistakes { file: config.source.path.clone(), all });
    }
    let mut of_fleet = Vec::new();
    let (pins, announced) = fleet::start::plugins(&config, &mut of_fleet, FIRST_READ).await;
    let (engine, library, scanner) = pinned_plugins(&config, pins)?;
    let mistakes = check_plugins(&config, &|plugin, kind, json| library.check(plugin, kind, json));
    if !mistakes.is_empty() {
        bail!("{mistakes}");
    }

    let workers = workers(&config);
    let (log, writing) = config.access_log.as_ref().map(Log::start).transpose()?.unzip();
    let (connectors, warnings) =
        Connectors::load(&config).map_err(|refused| anyhow!("{}", publisher::mistakes_of(&config, &refused)))?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Opened { spread, followed, predecessor, mut offer, offered } = open(&config, workers).await?;
    let listen = spread.listeners.iter().map(|it| (it.bound, it.tls.is_some())).collect();
    let addresses = Addresses { listen, admin: spread.admin.local_addr().context("reading the bound address")? };

    let remote = fleet::start::routes(&config, &mut of_fleet).await;
    let (sources, mut stats) = registries(&config);
    stats.append(&mut of_fleet);
    let mut texts = remote.as_ref().map(fleet::routes::Routes::changed);
    let first_read = async {
        for source in &sources {
            let mut view = source.view.clone();
            // An ended source is one that will never be read.
            let _ = view.wait_for(|view| view.state != State::Starting).await;
        }
        if let (Some(texts), Some(State::Starting)) = (&mut texts, remote.as_ref().map(fleet::routes::Routes::state)) {
            let _ = texts.wait_for(|texts| texts.state != State::Starting).await;
        }
    };
    // A gateway that has services is not replaced by one that has none.
    let patience = if predecessor.is_some() { FIRST_READ_BEFORE_HANDOVER } else { FIRST_READ };
    tokio::select! {
        read = tokio::time::timeout(patience, first_read) => match read {
            Ok(()) => {}
            Err(_) if predecessor.is_some() => bail!("no registry has answered, so the running gateway goes on"),
            Err(_) => tracing::warn!(waited = ?patience, "no registry has answered; starting without services"),
        },
        () = asked(&mut terminate, &mut interrupt) => bail!("stopped while starting"),
    }

    let (tracer, traces, exporting) = match config.tracing.as_ref().map(trace::start) {
        Some((tracer, traces, exporting)) => (Some(tracer), Some(traces), Some(exporting)),
        None => (None, None, None),
    };
    let current = Current::default();
    let drain = config.drain.0;
    let (checks, verdicts) = watch::channel(Verdicts::default());
    let events = Arc::new(Events::default());
    let of_tls = (connectors, followed);
    let publisher = Publisher::new(current.clone(), library, sources, verdicts, of_tls, config.clone(), events.clone());
    let sampled = traces.clone();
    let publisher = publisher
        .hearing(engine.alarm())
        .with_routes(remote)
        .telling(move |before, after| adopted(before, after, sampled.as_deref()));
    let (plugin_changes, plugins) = mpsc::channel(QUEUE);
    let (configs, new_configs) = mpsc::channel(QUEUE);
    tokio::spawn(health::run(current.clone(), publisher.published(), checks));
    tokio::spawn(scanner.follow(plugin_changes));
    let (series, token) = (config.metrics, config.admin_token.clone());
    let following = tokio::spawn(follow(reload, config, configs, log.clone(), events.clone()));
    tokio::spawn(found::watch_canaries(current.clone(), events.clone()));
    let mut publishing = tokio::spawn(publisher.run(new_configs, plugins));

    spread.listen()?;
    let metrics: Vec<Arc<metrics::Worker>> = (0..workers).map(|_| Arc::new(metrics::Worker::of(series))).collect();
    let (stop, stopped) = watch::channel(None);
    let state = admin::State {
        current: current.clone(),
        workers: metrics.clone(),
        registries: stats,
        announced,
        listeners: spread.listeners,
        stop: stopped.clone(),
        log: log.as_ref().map(Arc::downgrade).unwrap_or_default(),
        engine: engine.clone(),
        events,
        token,
        endpoint_series: series.endpoints as usize,
        started,
        traces,
    };
    let admin = tokio::net::TcpListener::from_std(spread.admin).context("registering the admin socket")?;
    let administrating = tokio::spawn(admin::serve(admin, state));

    let places = Arc::new(Places::default());
    let threads = spread.of_workers.into_iter().zip(metrics).enumerate().map(|(index, (sockets, metrics))| {
        let (current, engine, stop) = (current.clone(), engine.clone(), stopped.clone());
        let (places, log, tracer) = (places.clone(), log.clone(), tracer.clone());
        worker::start(worker::Setup { index, sockets, current, engine, metrics, places, log, tracer, stop })
    });
    let threads = threads.collect::<Result<Vec<_>>>()?;
    // The workers alone have it now, so that exporting ends when they do.
    drop(tracer);
    if let Some(predecessor) = predecessor {
        tokio::select! {
            biased;
            () = asked(&mut terminate, &mut interrupt) => bail!("stopped while starting; the running gateway goes on"),
            replaced = predecessor.replace() => replaced?,
        }
    }
    offer.as_mut().map(Offer::publish).transpose()?;
    ready(&addresses);

    let end = tokio::select! {
        () = asked(&mut terminate, &mut interrupt) => End::Asked,
        // Routes that no longer change are a slow outage: whoever watches this process should start it again.
        _ = &mut publishing => End::Frozen,
        () = replaced(&offer, &offered) => End::Replaced,
    };
    match end {
        End::Replaced => {
            // Both have this socket, and the other one's answers are those that count.
            administrating.abort();
            drop(offer);
        }
        End::Asked | End::Frozen => offer.into_iter().for_each(Offer::withdraw),
    }
    drop(offered);
    tracing::info!(limit = ?drain, replaced = end == End::Replaced, "stopping; running requests may end");
    stop.send_replace(Some(drain));
    for thread in threads {
        // A second signal is for those who do not want to wait.
        let joined = tokio::task::spawn_blocking(move || thread.join());
        tokio::select! {
            joined = joined => joined.context("waiting for a worker")?.map_err(|_| anyhow!("a worker panicked"))?,
            () = asked(&mut terminate, &mut interrupt) => bail!("stopped before all requests had ended"),
        }
    }
    administrating.abort();
    following.abort();
    if let Some(writing) = writing {
        // Whoever held the log has ended, or is about to.
        let _ = (administrating.await, following.await);
        drop(log);
        let _ = tokio::time::timeout(LAST_LINES, tokio::task::spawn_blocking(move || writing.join())).await;
    }
    if let Some(exporting) = exporting {
        let _ = tokio::time::timeout(LAST_SPANS, exporting).await;
    }
    ensure!(end != End::Frozen, "the publisher ended, which is a mistake in the gateway; please report it");
    Ok(())
}

/// What clients come to, and whom it is from and for.
struct Opened {
    spread: Spread,
    /// Looks after the files of TLS.
    followed: Arc<Followed>,
    /// Whose sockets these were.
    predecessor: Option<Predecessor>,
    /// Where the next gateway asks for them.
    offer: Option<Offer>,
    /// What it gets. Kept only where there is an offer: a copy keeps a socket open when its worker has closed it.
    offered: Option<Sockets>,
}

/// Reads the files of TLS, and opens everything that is listened on.
async fn open(config: &Config, workers: usize) -> Result<Opened> {
    let wanted = config.all_listeners();
    if let Some(twice) = config.listened_twice() {
        bail!("{twice} is to be listened on twice");
    }
    let (tls, mistakes, warnings) = acceptors(config, &wanted);
    if !mistakes.is_empty() {
        bail!("{mistakes}");
    }
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let followed = Arc::new(Followed::default());
    tls.iter().flatten().for_each(|acceptor| followed.add(acceptor));
    tokio::spawn(followed.clone().follow());

    let (predecessor, received) = match &config.handover {
        Some(path) => handover::ask(path).await?.unzip(),
        None => (None, None),
    };
    let offer = config.handover.as_deref().map(Offer::prepare).transpose()?;
    let places: Vec<SocketAddr> = wanted.iter().map(|it| it.address).collect();
    let sockets = Sockets::open(&places, config.admin, workers, received.unwrap_or_default())?;
    let offered = offer.is_some().then(|| sockets.again()).transpose().context("copying the listening sockets")?;
    let spread = Spread::new(sockets, &wanted, &tls, workers)?;
    Ok(Opened { spread, followed, predecessor, offer, offered })
}

/// How long the last lines of the access log may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How long the collector may take for the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Why the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By a signal.
    Asked,
    /// Another one has taken its place.
    Replaced,
    /// The publisher ended.
    Frozen,
}

/// Completes when a signal asks for the end.
async fn asked(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Completes when another gateway has taken over; never where none can.
async fn replaced(offer: &Option<Offer>, offered: &Option<Sockets>) {
    match (offer, offered) {
        (Some(offer), Some(offered)) => offer.serve(offered).await,
        _ => std::future::pending().await,
    }
}

/// For each listener what it shows to its clients, if it has TLS; what is wrong with the files, and what there is to
/// warn of.
pub fn acceptors(
    config: &Config,
    listeners: &[config::Listener],
) -> (Vec<Option<Arc<Acceptor>>>, Mistakes, Vec<String>) {
    let (mut all, mut warnings) = (Vec::new(), Vec::new());
    let mut mistakes = Mistakes { file: config.source.path.clone(), all: Vec::new() };
    for listener in listeners {
        let loaded = listener.tls.as_ref().map(|tls| Acceptor::load(listener.address, tls, &listener.protocols));
        all.push(match loaded {
            Some(Ok((acceptor, told))) => {
                warnings.extend(told.into_iter().map(|it| format!("listener {}: {it}", listener.address)));
                Some(acceptor)
            }
            Some(Err(refused)) => {
                let message = format!("{refused} (listener {})", listener.address);
                mistakes.all.push(mistake_at(config, &refused.at, message));
                None
            }
            None => None,
        });
    }
    (all, mistakes, warnings)
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
async fn follow(
    reload: Reload,
    mut config: Config,
    configs: mpsc::Sender<Config>,
    log: Option<Arc<Log>>,
    events: Arc<Events>,
) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let mut refused = None;
    let mut watched = Watched::default();
    loop {
        // What a refused configuration names is not known; what it lacks may be in the same directories.
        watched.follow(reload.file.as_deref().into_iter().chain(config.texts()));
        let asked = tokio::select! {
            () = watched.changed() => false,
            _ = hangup.recv() => true,
        };
        if asked && let Some(log) = log.clone() {
            // It may have to wait for a disk.
            tokio::task::spawn_blocking(move || log.reopen());
        }
        let text = reload.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        // The texts that plugins are given are part of the configuration.
        let known = config.texts().next().is_none()
            && (text.as_deref() == Some(&*config.source.text) || (text.is_some() && text == refused));
        if known && !asked {
            continue;
        }
        match (reload.read)() {
            Ok(new) if !asked && new.is_as(&config) => {}
            Ok(new) => {
                refused = None;
                config = new.clone();
                if configs.send(new).await.is_err() {
                    return;
                }
            }
            Err(_) if !asked && text.is_some() && text == refused => {}
            Err(mistakes) => {
                refused = text;
                tracing::error!("configuration refused, the one before stays:\n{mistakes}");
                events.tell(publisher::refused(&mistakes));
            }
        }
    }
}

/// Directories that are watched together.
#[derive(Default)]
struct Watched(Vec<(PathBuf, Watch)>);

impl Watched {
    /// Watches those that these files are in, and no others.
    fn follow<'a>(&mut self, files: impl Iterator<Item = &'a Path>) {
        let dir = |file: &'a Path| file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dirs: BTreeSet<&Path> = files.map(dir).collect();
        self.0.retain(|(dir, _)| dirs.contains(&**dir));
        for dir in dirs {
            if self.0.iter().all(|(known, _)| known != dir) {
                self.0.push((dir.to_owned(), Watch::new(dir)));
            }
        }
    }

    /// Completes when something may have changed in one of them.
    async fn changed(&mut self) {
        let all = self.0.iter_mut().map(|(_, watch)| Box::pin(watch.changed()));
        let mut all: Vec<_> = all.collect();
        std::future::poll_fn(|context| {
            let ready = all.iter_mut().any(|watch| watch.as_mut().poll(context).is_ready());
            if ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Lines about a change of the configuration; who changes more knows that it is much.
const TOLD: usize = 100;

/// Does what a configuration that was taken over asks of others than the publisher, and says what is different now.
fn adopted(before: &Config, after: &Config, traces: Option<&trace::Shared>) {
    if before.log.level != after.log.level {
        logging::set_level(&after.log.level);
    }
    if let (Some(traces), Some(tracing)) = (traces, &after.tracing) {
        traces.sample(tracing.sample);
    }
    let all = changes(before, after);
    for change in all.iter().take(TOLD) {
        let Change { key, before, after } = change;
        let [before, after] = [before, after].map(|it| it.as_deref().unwrap_or("(nothing)"));
        if change.waits() {
            tracing::warn!(key, before, after, "this key takes effect at the next start");
        } else {
            tracing::info!(key, before, after, "configuration changed");
        }
    }
    if all.len() > TOLD {
        tracing::info!(more = all.len() - TOLD, "configuration changed");
    }
}
