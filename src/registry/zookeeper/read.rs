//! Reading znodes, many in one request: 10,000 take 20 ms with MultiRead and half a second one by one.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};
use zookeeper_client::{Client, Error, MultiReadResult};

use super::hints::{Hints, is_own};
use super::oneshot::Oneshots;
use super::tree::{Body, Found};
use crate::config::Layout;
use crate::registry::layouts::dubbo::PROVIDERS;

/// Znodes in one request. More saves nothing.
const BATCH: usize = 256;

/// Bytes of paths in one request. The server closes the connection at 1 MiB.
const BATCH_BYTES: usize = 400 << 10;

/// Requests under way at once, so that neither the server nor we hold the whole tree in buffers.
const WINDOW: usize = 8;

/// How many znodes before one are looked at for texts that both have: mostly they are of the same service.
const ALIKE: usize = 3;

/// Whom to ask, and how.
pub(super) struct Reader<'a> {
    pub(super) client: &'a Client,
    /// What is read is watched by these, on a server that has no others.
    pub(super) oneshots: Option<&'a mut Oneshots>,
}

/// What is asked of a znode.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Children,
    Data,
}

/// Where to read: below `root`, without a trailing slash.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) root: &'a str,
    pub(super) layout: Layout,
}

/// All services there with their children. None if there is no root.
///
/// # Errors
/// The root cannot be read, or a request got no answer. Nothing is then known.
pub(super) async fn everything(reader: &mut Reader<'_>, place: Place<'_>) -> Result<Vec<(String, Found)>> {
    let root = place.root;
    let path = if root.is_empty() { "/" } else { root };
    let mut names = match &mut reader.oneshots {
        Some(oneshots) => oneshots.list(reader.client, path).await?,
        None => match reader.client.list_children(path).await {
            Ok(names) => names,
            Err(Error::NoNode) => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("listing {path}")),
        },
    };
    names.retain(|name| !is_own(root, name));
    services(reader, place, names).await
}

/// Whether the children of `path` may be listed, also if there is no such znode.
///
/// # Errors
/// Any other than that they may not.
pub(super) async fn may_list(client: &Client, path: &str) -> Result<bool> {
    match client.list_children(path).await {
        Ok(_) | Err(Error::NoNode) => Ok(true),
        Err(Error::NoAuth) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("listing {path}")),
    }
}

/// What [`Hints`] ask for: whole services, and single children by service.
pub(super) type Hinted = (Vec<(String, Found)>, Vec<(String, String, Body)>);

/// Reads what the hints name.
///
/// # Errors
/// A request got no answer. Nothing is then known.
pub(super) async fn hinted(reader: &mut Reader<'_>, place: Place<'_>, hints: Hints) -> Result<Hinted> {
    let services = services(reader, place, hints.services.into_iter().collect()).await?;
    let (mut all, mut paths) = (Vec::new(), Vec::new());
    for (service, children) in hints.children {
        // Those that are gone come last: there is nothing to read.
        let (there, gone): (Vec<_>, Vec<_>) = children.into_iter().partition(|(_, is)| *is);
        paths.extend(there.iter().map(|(child, _)| format!("{}/{service}/{child}", place.root)));
        all.extend(there.into_iter().chain(gone).map(|(child, is)| (service.clone(), child, Body::Missing, is)));
    }
    let mut slots: Vec<_> =
        all.iter_mut().filter(|(_, _, _, is)| *is).map(|(_, child, body, _)| (&**child, body)).collect();
    bodies(reader, place.layout, &paths, &mut slots).await?;
    Ok((services, all.into_iter().map(|(service, child, body, _)| (service, child, body)).collect()))
}

async fn services(reader: &mut Reader<'_>, place: Place<'_>, names: Vec<String>) -> Result<Vec<(String, Found)>> {
    let root = place.root;
    let paths: Vec<String> = names.iter().map(|name| format!("{root}/{name}")).collect();
    let mut all: Vec<_> = names.into_iter().map(|name| (name, Found::Missing)).collect();
    let take = |at: usize, answer| {
        all[at].1 = match answer {
            Answer::Children(children) => {
                Found::Children(children.into_iter().map(|child| (child, Body::Missing)).collect())
            }
            Answer::Forbidden => Found::Forbidden,
            Answer::Missing => Found::Missing,
            Answer::Data(..) => bail!("listing {}: the answer is to another question", paths[at]),
        };
        Ok(())
    };
    ask(reader, Ask::Children, &paths, take).await?;
    providers(reader, root, &mut all).await?;
    let (mut paths, mut slots) = (Vec::new(), Vec::new());
    for (name, found) in &mut all {
        if let Found::Children(children) = found {
            paths.extend(children.iter().map(|(child, _)| format!("{root}/{name}/{child}")));
            slots.extend(children.iter_mut().map(|(child, body)| (&**child, body)));
        }
    }
    bodies(reader, place.layout, &paths, &mut slots).await?;
    Ok(all)
}

/// Reads the znodes at `paths` into `slots`, each with the name of its child. What comes is looked into at once, while the
/// server has more to do: that takes about as long as sending it.
async fn bodies(
    reader: &mut Reader<'_>,
    layout: Layout,
    paths: &[String],
    slots: &mut [(&str, &mut Body)],
) -> Result<()> {
    let take = |at: usize, answer| {
        let (before, slots) = slots.split_at_mut(at);
        let (child, slot) = &mut slots[0];
        **slot = match answer {
            Answer::Data(bytes, owner) => Body::of(layout, child, &bytes, owner),
            Answer::Forbidden => Body::Forbidden,
            Answer::Missing => Body::Missing,
            Answer::Children(_) => bail!("reading {}: the answer is to another question", paths[at]),
        };
        before.iter().rev().take(ALIKE).for_each(|(_, other)| slot.share(other));
        Ok(())
    };
    ask(reader, Ask::Data, paths, take).await
}

/// Adds to services with a child [`PROVIDERS`] the children of that, as `providers/<child>`.
async fn providers(reader: &mut Reader<'_>, root: &str, all: &mut [(String, Found)]) -> Result<()> {
    let mut parents = Vec::new();
    let mut paths = Vec::new();
    for (name, found) in all {
        if let Found::Children(children) = found
            && children.iter().any(|(child, _)| child == PROVIDERS)
        {
            paths.push(format!("{root}/{name}/{PROVIDERS}"));
            parents.push(children);
        }
    }
    let take = |at: usize, answer| {
        // What may not be listed is a znode without endpoints.
        if let Answer::Children(more) = answer {
            parents[at].extend(more.into_iter().map(|child| (format!("{PROVIDERS}/{child}"), Body::Missing)));
        }
        Ok(())
    };
    ask(reader, Ask::Children, &paths, take).await
}

/// What one znode answered.
pub(super) enum Answer {
    Children(Vec<String>),
    /// And the session that holds it; 0 if none does.
    Data(Vec<u8>, i64),
    Forbidden,
    Missing,
}

/// Asks for all of `paths`, and has the answer to each taken by its place among them.
async fn ask(
    reader: &mut Reader<'_>,
    ask: Ask,
    paths: &[String],
    mut take: impl FnMut(usize, Answer) -> Result<()>,
) -> Result<()> {
    if let Some(oneshots) = &mut reader.oneshots {
        let answers = oneshots.ask(reader.client, ask, paths).await?;
        return answers.into_iter().enumerate().try_for_each(|(at, answer)| take(at, answer));
    }
    let mut running = VecDeque::with_capacity(WINDOW);
    let mut next = 0;
    while next < paths.len() || !running.is_empty() {
        if next < paths.len() && running.len() < WINDOW {
            let mut request = reader.client.new_multi_reader();
            let mut asked = Vec::with_capacity(BATCH);
            let mut bytes = 0;
            while next < paths.len()
                && asked.len() < BATCH
                && (asked.is_empty() || bytes + paths[next].len() < BATCH_BYTES)
            {
                let path = &paths[next];
                let added = match ask {
                    Ask::Children => request.add_get_children(path),
                    Ask::Data => request.add_get_data(path),
                };
                match added {
                    Ok(()) => asked.push(next),
                    // The server takes a few control characters in names that the client refuses to send.
                    Err(_) => take(next, Answer::Forbidden)?,
                }
                bytes += path.len();
                next += 1;
            }
            // The request is sent here; the future only waits for the answer.
            running.push_back((asked, request.commit()));
            continue;
        }
        let Some((asked, answer)) = running.pop_front() else { break };
        let results = answer.await.context("reading znodes")?;
        if results.len() != asked.len() {
            bail!("reading znodes: {} answers to {} questions", results.len(), asked.len());
        }
        for (index, result) in asked.into_iter().zip(results) {
            let answer = match result {
                MultiReadResult::Children { children } => Answer::Children(children),
                MultiReadResult::Data { data, stat } => Answer::Data(data, stat.ephemeral_owner),
                MultiReadResult::Error { err: Error::NoNode } => Answer::Missing,
                MultiReadResult::Error { err: Error::NoAuth } => Answer::Forbidden,
                MultiReadResult::Error { err } => return Err(err).with_context(|| format!("reading {}", paths[index])),
                _ => bail!("reading {}: an answer of an unknown kind", paths[index]),
            };
            take(index, answer)?;
        }
    }
    Ok(())
}
