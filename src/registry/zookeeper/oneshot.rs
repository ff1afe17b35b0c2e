//! Following znodes on servers before 3.6, which know neither recursive watches nor many reads in one request.
//!
//! Each read arms a watch for what it has read, which tells one change and is gone: then it is read again. That is a watch
//! for each znode, and a whole list for each change of one. The client restores these watches after a reconnection only as
//! long as their paths have less than 128 KiB together, and beyond that never connects again; so a session is not used any
//! further once its connection was lost.

use std::collections::{HashSet, VecDeque};
use std::future::pending;
use std::pin::Pin;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use zookeeper_client::{Client, Error, OneshotWatcher, StateWatcher, WatchedEvent};

use super::read::{Answer, Ask};

/// Requests under way at once.
const WINDOW: usize = 256;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a watch is for: a list of children, a body, or that there is a znode at all.
type Watched = (Kind, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Children,
    Data,
    Existence,
}

/// The watches that are armed, all of one session.
pub(super) struct Oneshots {
    armed: HashSet<Watched>,
    /// What they tell, with what they were for.
    telling: FuturesUnordered<Boxed<'static, (Watched, WatchedEvent)>>,
    states: StateWatcher,
}

impl Oneshots {
    /// None are armed.
    pub(super) fn new(client: &Client) -> Oneshots {
        Oneshots { armed: HashSet::new(), telling: FuturesUnordered::new(), states: client.state_watcher() }
    }

    fn arm(&mut self, kind: Kind, path: &str, watcher: OneshotWatcher) {
        let watched = (kind, path.to_owned());
        self.armed.insert(watched.clone());
        self.telling.push(Box::pin(async move { (watched, watcher.changed().await) }));
    }

    fn is_armed(&self, kind: Kind, path: &str) -> bool {
        self.armed.contains(&(kind, path.to_owned()))
    }

    /// The next change. Waits for ever if nothing is armed.
    ///
    /// # Errors
    /// The connection was lost or came back.
    pub(super) async fn changed(&mut self) -> Result<WatchedEvent> {
        let told = async {
            match self.telling.next().await {
                Some(told) => told,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            state = self.states.changed() => bail!("the connection became {state}"),
            (watched, event) = told => {
                self.armed.remove(&watched);
                Ok(event)
            }
        }
    }

    /// The children of `path`, or none if there is no such znode; then it is told when there is.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) async fn list(&mut self, client: &Client, path: &str) -> Result<Vec<String>> {
        loop {
            let (answer, watcher) = self.read(client, Ask::Children, path).await?;
            if let Some(watcher) = watcher {
                self.arm(Kind::Children, path, watcher);
            }
            match answer {
                Answer::Children(names) => return Ok(names),
                Answer::Missing => {}
                _ => return Err(Error::NoAuth).with_context(|| format!("listing {path}")),
            }
            if self.is_armed(Kind::Existence, path) {
                return Ok(Vec::new());
            }
            let (there, watcher) =
                client.check_and_watch_stat(path).await.with_context(|| format!("watching {path}"))?;
            self.arm(Kind::Existence, path, watcher);
            // Else it was made between the two.
            if there.is_none() {
                return Ok(Vec::new());
            }
        }
    }

    /// The answers in the order of `paths`.
    ///
    /// # Errors
    /// A request got no answer. Nothing is then known.
    pub(super) async fn ask(&mut self, client: &Client, ask: Ask, paths: &[String]) -> Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(paths.len());
        let mut running = VecDeque::with_capacity(WINDOW);
        let mut rest = paths.iter();
        loop {
            while running.len() < WINDOW
                && let Some(path) = rest.next()
            {
                running.push_back((path, self.read(client, ask, path)));
            }
            let Some((path, answer)) = running.pop_front() else { return Ok(answers) };
            let (answer, watcher) = answer.await.with_context(|| format!("reading {path}"))?;
            if let Some(watcher) = watcher {
                self.arm(kind(ask), path, watcher);
            }
            answers.push(answer);
        }
    }

    /// Asks, which happens here; the future only waits for the answer. A znode is watched from then on, if it is there.
    fn read<'a>(
        &self,
        client: &'a Client,
        ask: Ask,
        path: &'a str,
    ) -> Boxed<'a, Result<(Answer, Option<OneshotWatcher>)>> {
        match (ask, self.is_armed(kind(ask), path)) {
            (Ask::Children, true) => {
                let asked = client.list_children(path);
                Box::pin(async { answered(asked.await.map(|names| (Answer::Children(names), None))) })
            }
            (Ask::Children, false) => {
                let asked = client.list_and_watch_children(path);
                Box::pin(async {
                    answered(asked.await.map(|(names, watcher)| (Answer::Children(names), Some(watcher))))
                })
            }
            (Ask::Data, true) => {
                let asked = client.get_data(path);
                Box::pin(async {
                    answered(asked.await.map(|(bytes, stat)| (Answer::Data(bytes, stat.ephemeral_owner), None)))
                })
            }
            (Ask::Data, false) => {
                let asked = client.get_and_watch_data(path);
                Box::pin(async {
                    answered(
                        asked
                            .await
                            .map(|(bytes, stat, watcher)| (Answer::Data(bytes, stat.ephemeral_owner), Some(watcher))),
                    )
                })
            }
        }
    }
}

fn kind(ask: Ask) -> Kind {
    match ask {
        Ask::Children => Kind::Children,
        Ask::Data => Kind::Data,
    }
}

type Read = (Answer, Option<OneshotWatcher>);

fn answered(answer: Result<Read, Error>) -> Result<Read> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(Error::NoNode) => Ok((Answer::Missing, None)),
        // The server takes a few control characters in names that the client refuses to send.
        Err(Error::NoAuth | Error::BadArguments(_)) => Ok((Answer::Forbidden, None)),
        Err(error) => Err(error.into()),
    }
}
