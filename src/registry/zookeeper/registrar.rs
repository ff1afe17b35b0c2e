//! Announcing one endpoint as Registrator does: a service znode that is made if it is missing, and below it an ephemeral
//! child named like the address.
//!
//! The mirror of the source: here a session owns something, so what an old one of ours has left behind is replaced before
//! it vanishes with it, and what belongs to somebody else is left alone.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error, OneshotWatcher, Permission, Stat};

use super::{REFUSED, Throttle, session};
use crate::config::{self, Root, ServiceName};

/// How often a znode that keeps changing under our hands is tried anew before that counts as a failure.
const TRIES: usize = 16;

/// How long a session must have lasted for the next one to be opened without a growing pause.
const USEFUL: Duration = Duration::from_secs(5);

/// How long to rest after the client has panicked.
const RESTART: Duration = Duration::from_secs(1);

/// What is announced.
#[derive(Clone, Debug, Serialize)]
pub struct Announcement {
    /// The service.
    #[serde(rename = "Name", serialize_with = "plain")]
    pub service: ServiceName,
    /// Where it listens; the child's name.
    #[serde(flatten, serialize_with = "split")]
    pub address: SocketAddr,
    /// Who announces it. A znode that an earlier process with the same id has left behind is taken over.
    #[serde(rename = "ContainerID")]
    pub id: String,
    /// Labels without a value.
    #[serde(rename = "Tags")]
    pub tags: Vec<String>,
    /// Labels, among them `weight` and `zone`.
    #[serde(rename = "Attrs")]
    pub attrs: BTreeMap<String, String>,
}

fn plain<S: serde::Serializer>(name: &ServiceName, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&name.0)
}

fn split<S: serde::Serializer>(address: &SocketAddr, out: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = out.serialize_map(Some(3))?;
    map.serialize_entry("IP", &address.ip())?;
    map.serialize_entry("PublicPort", &address.port())?;
    map.serialize_entry("PrivatePort", &address.port())?;
    map.end()
}

/// What is wanted of an announcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// That it is not there now.
    #[default]
    Absent,
    /// That it is there.
    Present,
    /// That it is not there any more, whatever is wished after that.
    Ended,
}

impl Wish {
    /// Wishes something else; whether that is news.
    pub fn make(self, wishes: &watch::Sender<Wish>) -> bool {
        wishes.send_if_modified(|wish| *wish != Wish::Ended && std::mem::replace(wish, self) != self)
    }
}

/// Keeps the endpoint announced while that is wished, for ever; `there` says whether its znode may be there.
///
/// Whoever has wished for the end and waits for `there` to become false knows that ZooKeeper has confirmed it: nothing is
/// taken for granted while the servers cannot be reached. To be run on one thread.
pub async fn announce(
    config: config::ZooKeeper,
    announcement: Announcement,
    wishes: watch::Receiver<Wish>,
    there: watch::Sender<bool>,
) -> ! {
    loop {
        let announcer = Announcer::new(config.clone(), announcement.clone(), wishes.clone(), there.clone());
        // A set, because it ends its task when this future is dropped. The client can panic.
        let mut task = tokio::task::JoinSet::new();
        task.spawn(async move { announcer.follow().await });
        let ended = task.join_next().await;
        let error = ended.and_then(Result::err).map(|error| error.to_string());
        tracing::error!(error, "the announcement ended, and is started again");
        sleep(RESTART).await;
    }
}

struct Announcer {
    config: config::ZooKeeper,
    /// The service's znode, and the endpoint's.
    parent: String,
    path: String,
    body: Vec<u8>,
    id: String,
    acls: Vec<Acl>,
    wishes: watch::Receiver<Wish>,
    there: watch::Sender<bool>,
    /// Our sessions, the last of which lives.
    sessions: HashSet<i64>,
    /// The znode was ours once, so one of the same id that is not ours is another living process's.
    had: bool,
    unreachable: Throttle,
    refused: Throttle,
    taken: Throttle,
}

/// Whose the znode is.
enum Owner {
    /// There is none, or none of ours.
    Nobody,
    /// Ours, until this says that it changes.
    Us(OneshotWatcher),
    /// Somebody else's, as described, until this says that it changes.
    Other(String, OneshotWatcher),
}

impl Announcer {
    fn new(
        config: config::ZooKeeper,
        announcement: Announcement,
        wishes: watch::Receiver<Wish>,
        there: watch::Sender<bool>,
    ) -> Announcer {
        let parent = format!("{}/{}", config.root.0.first().map_or("", Root::trimmed), announcement.service.0);
        let anyone = |permission| Acl::new(permission, AuthId::anyone());
        // Registrator's are open to all. With credentials all may look, and only they may write.
        let acls = match config.auth.is_some() || config.auth_file.is_some() {
            true => vec![Acl::new(Permission::ALL, AuthId::authed()), anyone(Permission::READ)],
            false => vec![anyone(Permission::ALL)],
        };
        Announcer {
            path: format!("{parent}/{}", announcement.address),
            parent,
            // Names and texts: nothing in it could fail.
            body: serde_json::to_vec(&announcement).unwrap_or_default(),
            id: announcement.id,
            config,
            acls,
            wishes,
            there,
            sessions: HashSet::new(),
            had: false,
            unreachable: Throttle::default(),
            refused: Throttle::default(),
            taken: Throttle::default(),
        }
    }

    /// One session after the other.
    async fn follow(mut self) -> ! {
        let mut failures: u32 = 0;
        loop {
            failures = match session::open(&self.config, failures).await {
                Ok(session) => {
                    let (opened, client) = (Instant::now(), &session.client);
                    self.sessions.insert(client.session_id().0);
                    let Err(error) = self.serve(client).await;
                    tracing::info!(session = %client.session_id(), reason = format!("{error:#}"), "ZooKeeper session ended");
                    if opened.elapsed() >= USEFUL { 0 } else { failures.saturating_add(1) }
                }
                Err(error) => {
                    self.unreachable.say(|unsaid| {
                        tracing::warn!(error = format!("{error:#}"), unsaid, "ZooKeeper is out of reach");
                    });
                    failures.saturating_add(1)
                }
            };
            sleep(session::pause(failures, fastrand::f64())).await;
        }
    }

    /// One session, until it ends; the error says why.
    async fn serve(&mut self, client: &Client) -> Result<Infallible> {
        loop {
            session::usable(client).await?;
            let mut states = client.state_watcher();
            let wish = *self.wishes.borrow_and_update();
            let done = match wish {
                Wish::Present => self.register(client).await,
                Wish::Absent | Wish::Ended => self.withdraw(client).await.map(|()| Owner::Nobody),
            };
            let (watcher, again) = match done {
                Ok(Owner::Nobody) => (None, None),
                Ok(Owner::Us(watcher)) => (Some(watcher), None),
                Ok(Owner::Other(whose, watcher)) => {
                    let path = &self.path;
                    self.taken.say(|unsaid| {
                        tracing::warn!(path, whose, unsaid, "the znode is somebody else's; waiting for it to go");
                    });
                    (Some(watcher), None)
                }
                Err(error) => {
                    self.refused.say(|unsaid| {
                        tracing::warn!(error = format!("{error:#}"), unsaid, "ZooKeeper refused; trying again");
                    });
                    (None, Some(REFUSED))
                }
            };
            let changed = async {
                match watcher {
                    Some(watcher) => drop(watcher.changed().await),
                    None => std::future::pending().await,
                }
            };
            let asked = async {
                // Whoever asked is gone: then what was asked last holds.
                if self.wishes.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                _ = states.changed() => {}
                () = asked => {}
                () = changed => {}
                () = sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// Sees to it that the znode is there and ours, if it is not somebody else's.
    async fn register(&mut self, client: &Client) -> Result<Owner> {
        session::catch_up(client).await?;
        let create = CreateMode::Ephemeral;
        for _ in 0..TRIES {
            let acls = Acls::new(&self.acls);
            if *self.wishes.borrow() != Wish::Present {
                return Ok(Owner::Nobody);
            }
            // Once it is asked for it may be there, whatever becomes of the answer. Nothing is awaited in between, so whoever
            // has wished for the end cannot miss it.
            self.there.send_replace(true);
            let created = session::answered(client, async {
                Ok::<_, Error>(client.create(&self.path, &self.body, &create.with_acls(acls)).await)
            });
            match created.await? {
                Ok(_) | Err(Error::NodeExists) => {}
                Err(Error::NoNode) => {
                    self.make_parent(client).await?;
                    continue;
                }
                Err(error) => return Err(error).with_context(|| format!("creating {}", self.path)),
            }
            let (stat, watcher) = session::answered(client, client.check_and_watch_stat(&self.path)).await?;
            let Some(stat) = stat else { continue };
            let session = client.session_id().0;
            if stat.ephemeral_owner == session {
                self.had = true;
                tracing::info!(path = self.path, session = %client.session_id(), "registered");
                return Ok(Owner::Us(watcher));
            }
            match self.whose(client, &stat).await? {
                None => self.replace(client, &stat).await?,
                Some(whose) => {
                    self.there.send_replace(false);
                    return Ok(Owner::Other(whose, watcher));
                }
            }
        }
        bail!("registering {}: it keeps changing", self.path)
    }

    async fn make_parent(&self, client: &Client) -> Result<()> {
        let options = CreateMode::Persistent.with_acls(Acls::new(&self.acls));
        let made = session::answered(client, client.mkdir(&self.parent, &options)).await;
        made.with_context(|| format!("creating {}", self.parent))
    }

    /// Whose a znode is that is not this session's; none: left behind by an earlier one of ours.
    async fn whose(&self, client: &Client, stat: &Stat) -> Result<Option<String>> {
        if self.sessions.contains(&stat.ephemeral_owner) {
            return Ok(None);
        }
        if stat.ephemeral_owner == 0 {
            return Ok(Some("it is not ephemeral".into()));
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Body {
            #[serde(rename = "ContainerID")]
            id: String,
        }
        let body = match session::answered(client, client.get_data(&self.path)).await {
            Ok((body, _)) => serde_json::from_slice::<Body>(&body).unwrap_or_default(),
            Err(_) => Body::default(),
        };
        // Only before we had it: two living processes of one id must not take it from each other for ever.
        if body.id == self.id && !self.had {
            return Ok(None);
        }
        Ok(Some(format!("of session {:#x}, with the id {:?}", stat.ephemeral_owner, body.id)))
    }

    /// Puts ours in the place of one that would vanish with its session, in one step, so that nobody sees it missing.
    async fn replace(&self, client: &Client, stat: &Stat) -> Result<()> {
        let mut writer = client.new_multi_writer();
        writer.add_delete(&self.path, Some(stat.version))?;
        writer.add_create(&self.path, &self.body, &CreateMode::Ephemeral.with_acls(Acls::new(&self.acls)))?;
        let commit = writer.commit();
        match session::answered(client, async { Ok::<_, Error>(commit.await.map_err(Error::from)) }).await? {
            Ok(_) => {
                let session = format!("{:#x}", stat.ephemeral_owner);
                tracing::info!(path = self.path, session, "replaced what an earlier session of ours has left behind");
                Ok(())
            }
            // Somebody was quicker, for example the server, which ended the old session.
            Err(Error::NoNode | Error::NodeExists | Error::BadVersion) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("replacing {}", self.path)),
        }
    }

    /// Takes the znode away if it is ours, and the service's with it if it was the last.
    async fn withdraw(&mut self, client: &Client) -> Result<()> {
        if !*self.there.borrow() {
            return Ok(());
        }
        session::catch_up(client).await?;
        let stat = session::answered(client, client.check_stat(&self.path)).await?;
        if stat.is_some_and(|stat| self.sessions.contains(&stat.ephemeral_owner)) {
            self.delete(client).await?;
            tracing::info!(path = self.path, "deregistered");
        }
        self.there.send_replace(false);
        Ok(())
    }

    async fn delete(&self, client: &Client) -> Result<()> {
        let siblings = session::answered(client, client.list_children(&self.parent)).await;
        if siblings.is_ok_and(|all| all.len() == 1) {
            // Both at once, so that nobody finds a service without endpoints and wonders where they went.
            let mut writer = client.new_multi_writer();
            writer.add_delete(&self.path, None)?;
            writer.add_delete(&self.parent, None)?;
            let commit = writer.commit();
            if session::answered(client, async { Ok::<_, Error>(commit.await) }).await?.is_ok() {
                return Ok(());
            }
        }
        for path in [&self.path, &self.parent] {
            match session::answered(client, async { Ok::<_, Error>(client.delete(path, None).await) }).await? {
                Ok(()) | Err(Error::NoNode | Error::NotEmpty) => {}
                // We may not be allowed to, and an empty service is no harm.
                Err(error) if path == &self.parent => tracing::debug!(%error, path, "leaving the service's znode"),
                Err(error) => return Err(error).with_context(|| format!("deleting {path}")),
            }
        }
        Ok(())
    }
}

/// The address of ours that the servers see, for those who do not know it: the one that packets to the first of them leave
/// from.
///
/// # Errors
/// No server's name has an address, or there is no way to it.
pub async fn own_address(servers: &config::Servers) -> Result<std::net::IpAddr> {
    let first = servers.0.split(['/', ',']).next().unwrap_or_default();
    let first = if first.contains(':') { first.to_owned() } else { format!("{first}:2181") };
    let resolved = timeout(Duration::from_secs(5), tokio::net::lookup_host(first.as_str())).await;
    let mut resolved = resolved.context("no answer")?.with_context(|| format!("looking up {first}"))?;
    let server = resolved.next().with_context(|| format!("looking up {first}: it has no address"))?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any).context("finding the own address")?;
    // Nothing is sent: this only asks the routing table.
    socket.connect(server).with_context(|| format!("finding the way to {server}"))?;
    Ok(socket.local_addr().context("finding the own address")?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layout;
    use crate::registry::layouts::tests::endpoint_of;

    #[test]
    fn what_is_announced_is_what_the_gateway_reads() {
        let announcement = Announcement {
            service: "shop".parse().unwrap(),
            address: "10.0.0.7:8080".parse().unwrap(),
            id: "c0ffee".into(),
            tags: vec!["a".into(), "b".into()],
            attrs: [("weight", "3"), ("zone", "z"), ("k", "v")].map(|(name, value)| (name.into(), value.into())).into(),
        };
        let body = serde_json::to_string(&announcement).unwrap();
        assert_eq!(
            body,
            r#"{"Name":"shop","IP":"10.0.0.7","PublicPort":8080,"PrivatePort":8080,"ContainerID":"c0ffee","Tags":["a","b"],"Attrs":{"k":"v","weight":"3","zone":"z"}}"#
        );
        let read = endpoint_of(Layout::Registrator, "10.0.0.7:8080", &body);
        assert_eq!((read.address, read.weight, &*read.zone), (announcement.address, 3, "z"));
        let labels: Vec<String> = read.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(labels, ["container=c0ffee", "k=v", "tags=a,b"]);
    }
}
