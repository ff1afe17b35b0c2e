//! Opening sessions and waiting on their connection.
//!
//! A session is disposable: we own nothing in ZooKeeper, and a new one is ready sooner than the client reconnects an
//! old one (its pause doubles without a cap), even where the server would not take the old one back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{sleep, timeout};
use zookeeper_client::{Client, Error, SessionState};

use crate::config;

/// How long a lost connection may take to come back before the session is given up.
const GIVE_UP: Duration = Duration::from_millis(500);

/// The pause before another attempt, doubled from the first to the last. Capped low: a gateway that is late by a
/// second is worse than two connection attempts a second.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// How long an attempt may take, doubled from the first to the last. One hanging server of several must not hold up
/// the others, while a slow one must get its chance.
const ATTEMPT: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];

/// How long an answer may take on a connection that is alive.
const ANSWER: Duration = Duration::from_secs(60);

fn doubled([first, last]: [Duration; 2], times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(last)
}

/// The pause after `failures` failures in a row, with jitter: gateways must not come back in step.
pub(super) fn pause(failures: u32) -> Duration {
    doubled(PAUSE, failures).mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Opens a session, after `failures` failures in a row.
///
/// # Errors
/// No server took it, in time or at all, or the credentials cannot be read.
pub(super) async fn open(config: &config::ZooKeeper, failures: u32) -> Result<Client> {
    // Without `fail_eagerly` the client would pause between its attempts, and its pauses have no cap.
    let mut connector = Client::connector().with_session_timeout(config.session_timeout.0).with_fail_eagerly();
    if let Some(auth) = credentials(config).await? {
        let (scheme, secret) = auth.split_once(':').context("reading the credentials: they are not scheme:secret")?;
        // Before any watch: the server does not tell a recursive watch of znodes that its session may not read.
        connector = connector.with_auth(scheme, secret.as_bytes());
    }
    let servers = config.servers.0.as_str();
    match timeout(doubled(ATTEMPT, failures), connector.connect(servers)).await {
        Ok(client) => client.with_context(|| format!("connecting to {servers}")),
        Err(_) => bail!("connecting to {servers}: no answer"),
    }
}

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
    fn pauses_are_capped_and_never_zero() {
        for failures in [0, 1, 2, 3, 4, 10, 100, u32::MAX] {
            let pause = pause(failures);
            assert!(pause >= PAUSE[0] / 2 && pause <= PAUSE[1], "{failures}: {pause:?}");
            assert!(doubled(ATTEMPT, failures) >= ATTEMPT[0]);
        }
    }

    #[tokio::test]
    async fn credentials_are_read_and_never_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "digest:user:pass:word\n").unwrap();
        let mut config = config::ZooKeeper { auth_file: Some(file.path().to_owned()), ..Default::default() };
        assert_eq!(credentials(&config).await.unwrap().unwrap(), "digest:user:pass:word");
        std::fs::write(file.path(), "hunter2").unwrap();
        assert!(!format!("{:?}", open(&config, 0).await.unwrap_err()).contains("hunter2"));
        config.auth_file = Some("missing".into());
        assert!(format!("{:#}", open(&config, 0).await.unwrap_err()).starts_with("reading the credentials missing"));
    }
}
