//! Opening sessions and waiting on their connection.
//!
//! A session is disposable: we own nothing in ZooKeeper, and a new one is ready sooner than the client reconnects an
//! old one (its pause doubles without a cap), even where the server would not take the old one back.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, Error, SaslOptions, SessionState};

use super::tunnel::Tunnel;
use crate::config;

/// How long a lost connection may take to come back before the session is given up. With another server at hand the
/// client takes a twentieth of a second; beyond this it pauses for longer than a new session takes.
const GIVE_UP: Duration = Duration::from_millis(250);

/// The longest pause before another attempt, doubled from the first to the last. Capped low, so that the end of an
/// outage is seen within a third of a second, however long it was: a gateway that is late by a second is worse than a
/// few connection attempts a second.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];

/// No pause is shorter: a refused connection costs next to nothing, but not nothing.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// How long an attempt may take, doubled from the first to the last. One hanging server of several must not hold up
/// the others, while a slow one must get its chance.
const ATTEMPT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// How long an attempt may take beside one that takes longer. Where the network swallows everything, TCP itself tries
/// again after 1, 3 and 7 seconds; a new connection asks at once.
const FRESH: Duration = Duration::from_millis(350);

/// How long an answer may take on a connection that is alive.
const ANSWER: Duration = Duration::from_secs(60);

fn doubled([first, last]: [Duration; 2], times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(last)
}

/// The pause after `failures` failures in a row, where `random` is from 0 to 1. All of it is random ("full jitter"):
/// gateways lose their connections together, and must not come back together.
pub(super) fn pause(failures: u32, random: f64) -> Duration {
    doubled(PAUSE, failures).mul_f64(random).max(LEAST_PAUSE)
}

/// A client with a session, and the way to its servers if it needs one.
pub(super) struct Session {
    pub(super) client: Client,
    _tunnel: Option<Tunnel>,
}

/// Opens a session, after `failures` failures in a row.
///
/// # Errors
/// No server took it, in time or at all, or the credentials cannot be used.
pub(super) async fn open(config: &config::ZooKeeper, failures: u32) -> Result<Session> {
    let limit = doubled(ATTEMPT, failures);
    let mut attempt = pin!(connect(config, limit));
    let Ok(done) = timeout(ATTEMPT[0], &mut attempt).await else {
        return tokio::select! {
            done = attempt => done,
            session = fresh(config) => Ok(session),
        };
    };
    done
}

/// Connects again and again, in short attempts, until one succeeds.
async fn fresh(config: &config::ZooKeeper) -> Session {
    loop {
        if let Ok(session) = connect(config, FRESH).await {
            return session;
        }
        sleep(pause(0, fastrand::f64())).await;
    }
}

async fn connect(config: &config::ZooKeeper, limit: Duration) -> Result<Session> {
    // Without `fail_eagerly` the client would pause between its attempts, and its pauses have no cap.
    // The oldest protocol will do: nothing is created but plain znodes, in the way that all servers know.
    let connector = Client::connector().with_server_version(3, 4, 0).with_fail_eagerly();
    let mut connector = connector.with_session_timeout(config.session_timeout.0);
    if let Some(auth) = credentials(config).await? {
        let (scheme, secret) = auth.split_once(':').context("reading the credentials: they are not scheme:secret")?;
        // Before any watch: the server does not tell a recursive watch of znodes that its session may not read.
        connector = if scheme == SASL {
            let (user, password) =
                secret.split_once(':').context("reading the credentials: they are not sasl:user:password")?;
            connector.with_sasl(SaslOptions::digest_md5(user.to_owned(), password.to_owned()))
        } else {
            connector.with_auth(scheme, secret.as_bytes())
        };
    }
    if config.read_only {
        connector = connector.with_readonly(true);
    }
    let servers = config.servers.0.as_str();
    let tunnel = match &config.tls {
        Some(tls) => Some(Tunnel::open(servers, tls).await?),
        None => None,
    };
    let reached = tunnel.as_ref().map_or(servers, |tunnel| &tunnel.servers);
    match timeout(limit, connector.connect(reached)).await {
        Ok(client) => {
            let client = client.with_context(|| format!("connecting to {servers}"))?;
            Ok(Session { client, _tunnel: tunnel })
        }
        Err(_) => bail!("connecting to {servers}: no answer"),
    }
}

/// What stands before the user's name where SASL is meant, and not ZooKeeper's own `digest`.
const SASL: &str = "sasl";

/// Read anew for each session, so that credentials can be rotated. The value must never be printed.
async fn credentials(config: &config::ZooKeeper) -> Result<Option<String>> {
    if let Some(auth) = &config.auth {
        return Ok(Some(auth.0.clone()));
    }
    let Some(path) = config.auth_file.clone() else { return Ok(None) };
    let name = path.display().to_string();
    let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await?;
    let text = text.with_context(|| format!("reading the credentials {name}"))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Waits for `work` as long as the connection does not change: requests on a lost one wait without a limit.
///
/// # Errors
/// Those of `work`; the connection was lost or came back; no answer in time.
pub(super) async fn answered<T, E>(client: &Client, work: impl Future<Output = Result<T, E>>) -> Result<T>
where
    anyhow::Error: From<E>,
{
    let mut states = client.state_watcher();
    tokio::select! {
        biased;
        done = work => Ok(done?),
        state = states.changed() => bail!("the connection became {state}"),
        () = sleep(ANSWER) => bail!("no answer"),
    }
}

/// Waits until the session can be used, also if it can be now.
///
/// # Errors
/// It has ended, or its connection did not come back in time: it has to be replaced.
pub(super) async fn usable(client: &Client) -> Result<()> {
    let mut states = client.state_watcher();
    let wait = async {
        let mut state = client.state();
        loop {
            match state {
                SessionState::SyncConnected | SessionState::ConnectedReadOnly => return Ok(()),
                SessionState::Disconnected => state = states.changed().await,
                SessionState::AuthFailed | SessionState::Expired | SessionState::Closed => bail!("it is {state}"),
            }
        }
    };
    timeout(GIVE_UP, wait).await.unwrap_or_else(|_| bail!("its connection was lost and did not come back"))
}

/// Makes this server as new as the leader is now, so that a new session never shows an older state than the last one.
///
/// # Errors
/// The connection was lost.
pub(super) async fn catch_up(client: &Client) -> Result<()> {
    let synced = async {
        match client.sync("/").await {
            // A read-only server has no leader to catch up with.
            Err(Error::NotReadOnly) => Ok(()),
            other => other,
        }
    };
    answered(client, synced).await.context("catching up with the leader")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_over_their_whole_length_capped_and_never_zero() {
        for (failures, longest) in [(0, 50), (1, 100), (2, 200), (3, 300), (10, 300), (u32::MAX, 300)] {
            let longest = Duration::from_millis(longest);
            assert_eq!(pause(failures, 1.0), longest);
            assert_eq!(pause(failures, 0.5), longest / 2);
            assert_eq!(pause(failures, 0.0), LEAST_PAUSE);
        }
        // Of a hundred gateways that come back together, no more than a few do so within the same 10 ms.
        let mut random = fastrand::Rng::with_seed(7);
        let mut buckets = [0; 30];
        (0..100).for_each(|_| buckets[pause(9, random.f64()).as_millis() as usize / 10] += 1);
        assert!(buckets.iter().all(|it| *it <= 12), "{buckets:?}");
        assert!([0, 3, u32::MAX].iter().all(|failures| doubled(ATTEMPT, *failures) >= ATTEMPT[0]));
    }

    #[tokio::test]
    async fn credentials_are_read_and_never_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "digest:user:pass:word\n").unwrap();
        let mut config = config::ZooKeeper { auth_file: Some(file.path().to_owned()), ..Default::default() };
        assert_eq!(credentials(&config).await.unwrap().unwrap(), "digest:user:pass:word");
        std::fs::write(file.path(), "hunter2").unwrap();
        assert!(!format!("{:?}", open(&config, 0).await.err().unwrap()).contains("hunter2"));
        config.auth_file = Some("missing".into());
        assert!(format!("{:#}", open(&config, 0).await.err().unwrap()).starts_with("reading the credentials missing"));
    }
}
