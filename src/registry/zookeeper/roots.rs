//! The roots: what is read of each, and which of them may not be read.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Result, bail};
use tokio::time::Instant;
use zookeeper_client::{Client, Error};

use super::hints::Hints;
use super::hosts::Answer;
use super::read::{self, Reader};
use super::tree::Tree;
use super::{FIRST_ANSWERS, Source, session};

/// One root and what is known below it. All of them share the session, each has a watch of its own.
pub(super) struct Below<'a> {
    /// Without a trailing slash, and so empty for `/`.
    pub(super) root: &'a str,
    pub(super) tree: Tree,
    /// It could not be read since the last session event; [`Source::try_forbidden`] asks for it.
    pub(super) forbidden: bool,
}

impl Below<'_> {
    /// The path as ZooKeeper takes it.
    pub(super) fn path(&self) -> &str {
        if self.root.is_empty() { "/" } else { self.root }
    }
}

/// A root that could not be read can be read now, so that all is to begin anew.
#[derive(Debug)]
pub(super) struct Readable(String);

impl std::fmt::Display for Readable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} may be read now", self.0)
    }
}

impl std::error::Error for Readable {}

impl Source<'_> {
    /// Reads what the hints of each root name.
    pub(super) async fn apply(&mut self, reader: &mut Reader<'_>, hints: Vec<Hints>) -> Result<()> {
        let client = reader.client;
        if hints.iter().any(|hints| hints.everything) {
            self.read_everything(reader).await?;
        } else {
            for (Below { root, tree, .. }, hints) in self.below.iter_mut().zip(hints) {
                if hints == Hints::default() {
                    continue;
                }
                let place = read::Place { root, layout: tree.layout() };
                let (services, children) = session::answered(client, read::hinted(reader, place, hints)).await?;
                for (service, found) in services {
                    tree.set_service(&service, found);
                }
                for (service, child, body) in children {
                    tree.set_child(&service, child, body);
                }
            }
        }
        self.ask_for_hosts();
        self.publish();
        Ok(())
    }

    /// Reads all roots. What is known of one that may not be read stays, and is no other's trouble.
    ///
    /// # Errors
    /// No root may be read; a request got no answer.
    pub(super) async fn read_everything(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let (client, started) = (reader.client, Instant::now());
        let mut refused = None;
        // One that was refused is left alone: what vanished meanwhile, untold, would count as taken away.
        for Below { root, tree, forbidden } in self.below.iter_mut().filter(|below| !below.forbidden) {
            let place = read::Place { root, layout: tree.layout() };
            let all = match session::answered(client, read::everything(reader, place)).await {
                Err(error) if matches!(error.downcast_ref(), Some(Error::NoAuth)) => {
                    *forbidden = true;
                    refused = Some(error);
                    continue;
                }
                all => all?,
            };
            tracing::debug!(root, services = all.len(), elapsed = ?started.elapsed(), "everything read");
            tree.replace(all);
        }
        if self.below.iter().all(|below| below.forbidden) {
            return Err(refused.unwrap_or_else(|| Error::NoAuth.into()));
        }
        if let Some(error) = refused {
            self.refused.say(|unsaid| {
                tracing::warn!(
                    error = format!("{error:#}"),
                    unsaid,
                    "ZooKeeper refused; the last services of this root stay"
                );
            });
        }
        self.effort = started.elapsed();
        let named: HashSet<Arc<str>> = self.below.iter_mut().flat_map(|below| below.tree.hosts()).collect();
        self.hosts.keep(&named);
        self.ask_for_hosts();
        // So that a service is not published without those of its endpoints that have a name.
        let answers = self.hosts.first(Instant::now() + FIRST_ANSWERS).await;
        self.locate(&answers);
        self.stats.full_reads.fetch_add(1, Relaxed);
        Ok(())
    }

    /// Lets hosts be looked up that were named since the last call.
    fn ask_for_hosts(&mut self) {
        for Below { tree, .. } in &mut self.below {
            let mut refused = 0;
            let mut known = Vec::new();
            for host in tree.take_unknown() {
                match self.hosts.address(&host) {
                    // Another root had it first.
                    Some(address) => known.push((host, address)),
                    None => refused += usize::from(!self.hosts.want(&host)),
                }
            }
            tree.locate(&known);
            if refused > 0 {
                self.stats.bad_entries.fetch_add(refused as u64, Relaxed);
                self.bad.say(|unsaid| tracing::warn!(hosts = refused, unsaid, "too many names of hosts to look up"));
            }
        }
    }

    pub(super) fn locate(&mut self, answers: &[Answer]) {
        self.below.iter_mut().for_each(|below| below.tree.locate(answers));
    }

    /// Whether there is a root that may not be read, and others that may.
    pub(super) fn misses_a_root(&self) -> bool {
        self.below.iter().any(|below| below.forbidden)
    }

    /// Asks again for the roots that may not be read: a changed ACL has no event.
    ///
    /// # Errors
    /// [`Readable`]; the connection was lost.
    pub(super) async fn try_forbidden(&self, client: &Client) -> Result<()> {
        for below in self.below.iter().filter(|below| below.forbidden) {
            if session::answered(client, read::may_list(client, below.path())).await? {
                bail!(Readable(below.path().to_owned()));
            }
        }
        Ok(())
    }
}
