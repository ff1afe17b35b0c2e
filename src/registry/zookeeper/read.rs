//! Reading znodes, many in one request: 10,000 take 20 ms with MultiRead and half a second one by one.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};
use zookeeper_client::{Client, Error, MultiReadResult};

use super::hints::{Hints, is_own};
use super::oneshot::Oneshots;
use super::tree::{Body, Found};
use crate::registry::layouts::dubbo::PROVIDERS;

/// Znodes in one request. More saves nothing.
const BATCH: usize = 256;

/// Bytes of paths in one request. The server closes the connection at 1 MiB.
const BATCH_BYTES: usize = 400 << 10;

/// Requests under way at once, so that neither the server nor we hold the whole tree in buffers.
const WINDOW: usize = 8;

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

/// All services below `root` (without a trailing slash) with their children. None if there is no root.
///
/// # Errors
/// The root cannot be read, or a request got no answer. Nothing is then known.
pub(super) async fn everything(reader: &mut Reader<'_>, root: &str) -> Result<Vec<(String, Found)>> {
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
    services(reader, root, names).await
}

/// What [`Hints`] ask for: whole services, and single children by service.
pub(super) type Hinted = (Vec<(String, Found)>, Vec<(String, String, Body)>);

/// Reads what the hints name.
///
/// # Errors
/// A request got no answer. Nothing is then known.
pub(super) async fn hinted(reader: &mut Reader<'_>, root: &str, hints: Hints) -> Result<Hinted> {
    let services = services(reader, root, hints.services.into_iter().collect()).await?;
    let children = hints.children.into_iter();
    let all = children
        .flat_map(|(service, children)| children.into_iter().map(move |(child, is)| (service.clone(), child, is)));
    let (there, gone): (Vec<_>, Vec<_>) = all.partition(|(_, _, is)| *is);
    let paths: Vec<String> = there.iter().map(|(service, child, _)| format!("{root}/{service}/{child}")).collect();
    let bodies = ask(reader, Ask::Data, &paths).await?.into_iter().map(body);
    let read = there.into_iter().zip(bodies).map(|((service, child, _), body)| Ok((service, child, body?)));
    let gone = gone.into_iter().map(|(service, child, _)| Ok((service, child, Body::Missing)));
    Ok((services, read.chain(gone).collect::<Result<_>>()?))
}

async fn services(reader: &mut Reader<'_>, root: &str, names: Vec<String>) -> Result<Vec<(String, Found)>> {
    let paths: Vec<String> = names.iter().map(|name| format!("{root}/{name}")).collect();
    let lists = ask(reader, Ask::Children, &paths).await?;
    let mut all = Vec::with_capacity(names.len());
    for (name, answer) in names.into_iter().zip(lists) {
        let found = match answer {
            Answer::Children(children) => {
                Found::Children(children.into_iter().map(|child| (child, Body::Missing)).collect())
            }
            Answer::Forbidden => Found::Forbidden,
            Answer::Missing => Found::Missing,
            Answer::Data(..) => bail!("listing {root}/{name}: the answer is to another question"),
        };
        all.push((name, found));
    }
    providers(reader, root, &mut all).await?;
    let mut paths = Vec::new();
    for (name, found) in &all {
        if let Found::Children(children) = found {
            paths.extend(children.iter().map(|(child, _)| format!("{root}/{name}/{child}")));
        }
    }
    let mut answers = ask(reader, Ask::Data, &paths).await?.into_iter();
    for (_, found) in &mut all {
        let Found::Children(children) = found else { continue };
        for ((_, slot), answer) in children.iter_mut().zip(&mut answers) {
            *slot = body(answer)?;
        }
    }
    Ok(all)
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
    for (children, answer) in parents.into_iter().zip(ask(reader, Ask::Children, &paths).await?) {
        // What may not be listed is a znode without endpoints.
        if let Answer::Children(more) = answer {
            children.extend(more.into_iter().map(|child| (format!("{PROVIDERS}/{child}"), Body::Missing)));
        }
    }
    Ok(())
}

/// What one znode answered.
pub(super) enum Answer {
    Children(Vec<String>),
    /// And the session that holds it; 0 if none does.
    Data(Vec<u8>, i64),
    Forbidden,
    Missing,
}

fn body(answer: Answer) -> Result<Body> {
    Ok(match answer {
        Answer::Data(bytes, owner) => Body::Bytes(bytes, owner),
        Answer::Forbidden => Body::Forbidden,
        Answer::Missing => Body::Missing,
        Answer::Children(_) => bail!("reading a znode: the answer is to another question"),
    })
}

/// The answers in the order of `paths`.
async fn ask(reader: &mut Reader<'_>, ask: Ask, paths: &[String]) -> Result<Vec<Answer>> {
    if let Some(oneshots) = &mut reader.oneshots {
        return oneshots.ask(reader.client, ask, paths).await;
    }
    let mut answers: Vec<Option<Answer>> = Vec::with_capacity(paths.len());
    answers.resize_with(paths.len(), || None);
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
                    Err(_) => answers[next] = Some(Answer::Forbidden),
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
            answers[index] = Some(match result {
                MultiReadResult::Children { children } => Answer::Children(children),
                MultiReadResult::Data { data, stat } => Answer::Data(data, stat.ephemeral_owner),
                MultiReadResult::Error { err: Error::NoNode } => Answer::Missing,
                MultiReadResult::Error { err: Error::NoAuth } => Answer::Forbidden,
                MultiReadResult::Error { err } => return Err(err).with_context(|| format!("reading {}", paths[index])),
                _ => bail!("reading {}: an answer of an unknown kind", paths[index]),
            });
        }
    }
    answers.into_iter().collect::<Option<_>>().context("reading znodes: not all were answered")
}
