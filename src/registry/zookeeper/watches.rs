//! What tells of changes below the roots.

use std::task::Poll;

use anyhow::{Context, Result};
use zookeeper_client::{AddWatchMode, Client, Error, PersistentWatcher, WatchedEvent};

use super::oneshot::Oneshots;
use super::read::Reader;
use super::session;

/// See the file's head.
pub(super) enum Watches {
    /// One for each root, in their order.
    Recursive(Vec<PersistentWatcher>),
    /// One for each znode.
    Oneshot(Oneshots),
}

impl Watches {
    /// Arms a watch on each root that tells of all below it. On servers before 3.6 (`old`) none: reading arms them.
    ///
    /// # Errors
    /// The server refused; the connection was lost. A server before 3.6 does not know what is asked, and ends the session;
    /// `old` is true from then on.
    pub(super) async fn arm(client: &Client, roots: impl Iterator<Item = &str>, old: &mut bool) -> Result<Watches> {
        if *old {
            return Ok(Watches::Oneshot(Oneshots::new(client)));
        }
        let mut all = Vec::new();
        for path in roots {
            let armed = session::answered(client, client.watch(path, AddWatchMode::PersistentRecursive)).await;
            if let Err(error) = &armed
                && matches!(error.downcast_ref(), Some(Error::Unimplemented))
            {
                *old = true;
                tracing::warn!(
                    "ZooKeeper is older than 3.6: it is followed by a watch for each znode, which costs more"
                );
            }
            all.push(armed.with_context(|| format!("watching {path}"))?);
        }
        Ok(Watches::Recursive(all))
    }

    /// The next event, and of which root; none where the path has to tell that.
    ///
    /// # Errors
    /// The connection was lost or came back. Recursive watches tell that by an event.
    pub(super) async fn next(&mut self) -> Result<(Option<usize>, WatchedEvent)> {
        match self {
            Watches::Recursive(watchers) => {
                let (at, event) = any(watchers).await;
                Ok((Some(at), event))
            }
            Watches::Oneshot(oneshots) => Ok((None, oneshots.changed().await?)),
        }
    }

    /// Reads so that what was read goes on to be watched.
    pub(super) fn reader<'a>(&'a mut self, client: &'a Client) -> Reader<'a> {
        let oneshots = match self {
            Watches::Recursive(_) => None,
            Watches::Oneshot(oneshots) => Some(oneshots),
        };
        Reader { client, oneshots }
    }
}

/// The next event of any of them, and which one's it is.
async fn any(watchers: &mut [PersistentWatcher]) -> (usize, WatchedEvent) {
    let mut all: Vec<_> = watchers.iter_mut().map(|watcher| Box::pin(watcher.changed())).collect();
    std::future::poll_fn(|context| {
        let ready = all.iter_mut().enumerate().find_map(|(at, next)| match next.as_mut().poll(context) {
            Poll::Ready(event) => Some((at, event)),
            Poll::Pending => None,
        });
        ready.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
