//! Everything that can happen to an ensemble, one after the other, under steady load: no request may fail.
//!
//! The table is printed (`cargo test --test it matrix -- --nocapture`), and told with a failure.

use std::cell::Cell;
use std::fmt::Write;
use std::fs;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::StatusCode;
use tempfile::TempDir;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;
use zookeeper_client::{Acls, CreateMode, Error, SessionState};

use crate::support::client::{Client, request};
use crate::support::ensemble::Ensemble;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::zookeeper::{Registrar, Server, ignore};

/// Of the service that flaps.
const MANY: usize = 200;

/// Clients that ask without a pause to speak of.
const CLIENTS: usize = 3;

/// The gateway's session; the least that the servers grant is one second.
const SESSION: Duration = Duration::from_secs(2);

/// Registrars stay longer than any outage here.
const REGISTRARS: Duration = Duration::from_secs(15);

/// After the end of an outage everything must be followed again within this. Half a second is what is promised; a busy
/// machine elects its leaders meanwhile.
const LATEST: Duration = Duration::from_secs(5);

/// Requests to all services, until [`Load::end`].
struct Load {
    stopping: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: SocketAddr) -> Load {
        let (stopping, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..CLIENTS).map(|_| {
            let (stopping, answers) = (stopping.clone(), answers.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut client = Client::to(gateway).await;
                while !stopping.load(Relaxed) {
                    for service in ["shop", "lone", "many"] {
                        let sent = client.send(request(&format!("/{service}/"), &[])).await;
                        match sent {
                            Ok(reply) if reply.status == StatusCode::OK => {}
                            Ok(reply) => failures.push(format!("{service}: {} {}", reply.status, reply.text().trim())),
                            Err(error) => {
                                failures.push(format!("{service}: {error:?}"));
                                client = Client::to(gateway).await;
                            }
                        }
                        answers.fetch_add(1, Relaxed);
                        sleep(Duration::from_millis(2)).await;
                    }
                }
                failures
            })
        });
        Load { clients: clients.collect(), stopping, answers }
    }

    async fn end(self) -> (usize, Vec<String>) {
        self.stopping.store(true, Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        (self.answers.load(Relaxed), failures)
    }
}

/// A line of the table.
struct Row {
    fault: &'static str,
    requests: usize,
    failures: Vec<String>,
    /// From the end of the fault until the gateway follows the registry.
    followed: Duration,
    /// From then until a change is seen.
    seen: Duration,
    /// Whether endpoints were used that had vanished.
    second_tier: bool,
}

/// What the rows share.
struct World {
    ensemble: Ensemble,
    links: Vec<Proxy>,
    gateway: Option<Gateway>,
    config: String,
    shop: Vec<Origin>,
    lone: Origin,
    many: Vec<Origin>,
    /// Of `shop` and `lone`, and of `many`.
    registrars: [Option<Registrar>; 2],
    load: Option<Load>,
    /// Of the row under way.
    requests: usize,
    failures: Vec<String>,
    second_tier: Cell<bool>,
    rows: Vec<Row>,
}

impl World {
    async fn start(dir: &TempDir) -> World {
        let ensemble = block_in_place(Ensemble::start);
        let links: Vec<Proxy> = ensemble.servers.iter().map(|server| Proxy::to(server.address)).collect();
        let servers: Vec<String> = links.iter().map(|link| link.address.to_string()).collect();
        let config = format!(
            "[auto_routes]\n[registry.zookeeper]\nservers = \"{}\"\nsession_timeout = \"{SESSION:?}\"\n\
             snapshot = \"{}\"\n",
            servers.join(","),
            dir.path().join("snapshot.json").display(),
        );
        let shop = vec![Origin::start().await, Origin::start().await];
        let lone = Origin::start().await;
        let mut many = Vec::new();
        for _ in 0..MANY {
            many.push(Origin::start().await);
        }
        let mut world = World {
            ensemble,
            links,
            gateway: None,
            config,
            shop,
            lone,
            many,
            registrars: [None, None],
            load: None,
            requests: 0,
            failures: Vec::new(),
            second_tier: Cell::new(false),
            rows: Vec::new(),
        };
        world.register().await;
        world.gateway = Some(Gateway::start(&world.config));
        world
    }

    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    /// Registrars that are there and have registered everything: a registrar that lost its session starts anew.
    async fn register(&mut self) {
        for registrar in &mut self.registrars {
            let ended = |it: &Registrar| {
                matches!(it.client().state(), SessionState::Expired | SessionState::Closed | SessionState::AuthFailed)
            };
            if registrar.as_ref().is_none_or(ended) {
                *registrar = Some(Registrar::through(self.ensemble.connect(REGISTRARS).await, "/services").await);
            }
        }
        let [Some(few), Some(many)] = &self.registrars else { unreachable!() };
        for origin in &self.shop {
            few.register("shop", &origin.name()).await;
        }
        few.register("lone", &self.lone.name()).await;
        let many = self.many.iter().map(|origin| async move { many.register("many", &origin.name()).await });
        // A request is sent when it is made, so that these overlap.
        futures_of(many).await;
    }

    /// That of each service all endpoints are registered, as the gateway sees it.
    async fn is_whole(&self) -> bool {
        let all = self.gateway().api("services").await;
        let whole = |name: &str, count: usize| {
            let service = all["services"].as_array().unwrap().iter().find(|it| it["name"] == name);
            service.is_some_and(|it| it["tier"] == 1 && it["endpoints"].as_array().unwrap().len() == count)
        };
        whole("shop", self.shop.len()) && whole("lone", 1) && whole("many", MANY)
    }

    async fn uses_second_tier(&self) -> bool {
        let all = self.gateway().api("services").await;
        let uses = all["services"].as_array().unwrap().iter().any(|it| it["tier"] == 2);
        self.second_tier.set(uses || self.second_tier.get());
        uses
    }

    fn resume(&mut self) {
        self.load = Some(Load::start(self.gateway().http));
    }

    async fn pause(&mut self) {
        if let Some(load) = self.load.take() {
            let (requests, failures) = load.end().await;
            self.requests += requests;
            self.failures.extend(failures);
        }
    }

    async fn follows(&self) -> bool {
        self.gateway().metric("moongate_registry_up{registry=\"zookeeper\"}").await == 1.0
    }

    async fn is_stale(&self) {
        eventually("the gateway notices", async || !self.follows().await).await;
    }

    /// Lets `fault` happen under load; when it returns, the ensemble is well again.
    async fn row(&mut self, fault: &'static str, happen: impl AsyncFnOnce(&mut World)) {
        eventually("everything is registered", async || self.is_whole().await).await;
        self.resume();
        happen(self).await;
        let ended = Instant::now();
        eventually("the registry is followed", async || self.follows().await).await;
        let followed = ended.elapsed();

        let client = self.ensemble.connect(REGISTRARS).await;
        let address = format!("10.9.9.9:{}", self.rows.len() + 1);
        // The root may be gone.
        let registrar = Registrar::through(client, "/services").await;
        registrar.register("changes", &address).await;
        let created = Instant::now();
        eventually("a change is seen", async || {
            self.gateway().endpoints("changes").await.is_some_and(|all| all.contains(&address))
        })
        .await;
        let seen = created.elapsed();
        self.register().await;
        eventually("everything is registered again", async || self.is_whole().await).await;
        self.pause().await;
        let (requests, failures) = (take(&mut self.requests), take(&mut self.failures));
        let second_tier = self.second_tier.take();
        self.rows.push(Row { fault, requests, failures, followed, seen, second_tier });
        println!("{}", self.table().lines().last().unwrap());
    }

    fn table(&self) -> String {
        let mut out = "| Fault | Requests | Failed | Followed again | Change seen | Second tier |\n".to_owned();
        out.push_str("|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let Row { fault, requests, failures, followed, seen, second_tier } = row;
            let (failed, second_tier) = (failures.len(), if *second_tier { "used" } else { "" });
            let millis = |time: &Duration| format!("{} ms", time.as_millis());
            let (followed, seen) = (millis(followed), millis(seen));
            writeln!(out, "| {fault} | {requests} | {failed} | {followed} | {seen} | {second_tier} |").unwrap();
        }
        out
    }
}

/// Waits for all of them at once.
async fn futures_of<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|it| it.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whatever_happens_to_the_ensemble_no_request_fails() {
    let dir = TempDir::new().unwrap();
    let mut world = World::start(&dir).await;
    let began = Instant::now();

    world
        .row("leader killed", async |world| {
            let leader = world.ensemble.leader();
            block_in_place(|| {
                world.ensemble.servers[leader].kill();
                world.ensemble.leader();
                world.ensemble.servers[leader].restart();
            });
        })
        .await;
    world
        .row("two of three killed", async |world| {
            block_in_place(|| world.ensemble.servers[..2].iter().for_each(Server::kill));
            world.is_stale().await;
            block_in_place(|| {
                world.ensemble.servers[..2].iter().for_each(Server::begin);
                world.ensemble.servers.iter().for_each(Server::wait);
            });
        })
        .await;
    world
        .row("leader hangs", async |world| {
            let leader = world.ensemble.leader();
            world.ensemble.servers[leader].signal("-STOP");
            let others = || (0..3).filter(move |at| *at != leader);
            eventually("another leads", async || {
                block_in_place(|| others().any(|at| world.ensemble.servers[at].mode().as_deref() == Some("leader")))
            })
            .await;
            world.ensemble.servers[leader].signal("-CONT");
            block_in_place(|| world.ensemble.servers[leader].wait());
        })
        .await;
    world
        .row("all hang", async |world| {
            world.ensemble.servers.iter().for_each(|server| server.signal("-STOP"));
            world.is_stale().await;
            world.ensemble.servers.iter().for_each(|server| server.signal("-CONT"));
            block_in_place(|| world.ensemble.servers.iter().for_each(Server::wait));
        })
        .await;
    world
        .row("network cut", async |world| {
            world.links.iter().for_each(Proxy::close);
            world.is_stale().await;
            sleep(Duration::from_secs(1)).await;
            world.links.iter().for_each(Proxy::open);
        })
        .await;
    world
        .row("network swallows everything", async |world| {
            world.links.iter().for_each(Proxy::swallow);
            world.is_stale().await;
            sleep(Duration::from_secs(1)).await;
            world.links.iter().for_each(Proxy::open);
        })
        .await;
    world
        .row("session expires", async |world| {
            let sessions = world.gateway().metric("moongate_registry_sessions_total{registry=\"zookeeper\"}").await;
            // A gateway that does not run does not ping.
            world.gateway().signal("-STOP");
            sleep(SESSION + Duration::from_millis(1500)).await;
            world.gateway().signal("-CONT");
            eventually("it has another session", async || {
                world.gateway().metric("moongate_registry_sessions_total{registry=\"zookeeper\"}").await > sessions
            })
            .await;
        })
        .await;
    world
        .row("restarted with empty data", async |world| {
            block_in_place(|| world.ensemble.restart_empty());
            eventually("the loss is seen", async || world.uses_second_tier().await).await;
            // Registrars that restart: the servers refuse their old sessions for ever.
            world.registrars = [None, None];
        })
        .await;
    world
        .row("servers restarted one by one", async |world| {
            block_in_place(|| world.ensemble.servers.iter().for_each(Server::restart));
        })
        .await;
    world
        .row("/services wiped", async |world| {
            let client = world.ensemble.connect(REGISTRARS).await;
            for service in client.list_children("/services").await.unwrap() {
                for child in client.list_children(&format!("/services/{service}")).await.unwrap() {
                    // The registrar of the row before has just ended its session, and its znode goes with it.
                    ignore(client.delete(&format!("/services/{service}/{child}"), None).await, Error::NoNode);
                }
                client.delete(&format!("/services/{service}"), None).await.unwrap();
            }
            client.delete("/services", None).await.unwrap();
            eventually("the loss is seen", async || world.uses_second_tier().await).await;
            let losses = "moongate_registry_mass_losses_total{registry=\"zookeeper\"}";
            eventually("it is judged", async || world.gateway().metric(losses).await >= 1.0).await;
            sleep(Duration::from_millis(300)).await;
            // Its root is there again before it registers.
            let root = CreateMode::Persistent.with_acls(Acls::anyone_all());
            client.create("/services", b"", &root).await.unwrap();
        })
        .await;
    world
        .row("200 endpoints flap", async |world| {
            for _ in 0..3 {
                world.registrars[1] = None;
                eventually("they vanish", async || world.uses_second_tier().await).await;
                world.register().await;
                eventually("they are back", async || world.is_whole().await).await;
            }
            world.registrars[1] = None;
            eventually("they vanish", async || world.uses_second_tier().await).await;
        })
        .await;
    world
        .row("garbage bodies", async |world| {
            let registrar = world.registrars[0].as_ref().unwrap();
            let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
            let huge = vec![b'{'; 100 << 10];
            for (name, body) in
                [("nonsense", &b"{}"[..]), ("10.0.0.1:0", b""), ("%00", b"\xff\xfe"), ("x", b"[1,2]"), ("huge", &huge)]
            {
                registrar.client().create(&format!("/services/shop/{name}"), body, &options).await.unwrap();
            }
            for origin in &world.shop {
                let path = format!("/services/shop/{}", origin.name());
                registrar.client().set_data(&path, b"\x00garbage", None).await.unwrap();
            }
        })
        .await;
    world
        .row("gateway restarted, ensemble dead", async |world| {
            let saved = dir.path().join("snapshot.json");
            let last = world.many.last().unwrap().name();
            eventually("the snapshot is written", async || {
                fs::read_to_string(&saved).is_ok_and(|text| text.contains(&last))
            })
            .await;
            block_in_place(|| world.ensemble.servers.iter().for_each(Server::kill));
            // It does not hand over, so nobody can ask meanwhile.
            world.pause().await;
            world.gateway = None;
            world.gateway = Some(Gateway::start(&world.config));
            let took = world.gateway().started_in;
            println!("started from the snapshot in {took:?}");
            assert!(took < Duration::from_secs(4), "it waited for ZooKeeper: {took:?}");
            world.resume();
            sleep(Duration::from_secs(1)).await;
            block_in_place(|| {
                world.ensemble.servers.iter().for_each(Server::begin);
                world.ensemble.servers.iter().for_each(Server::wait);
            });
        })
        .await;
    world
        .row("endpoint dies, its znode stays", async |world| {
            drop(world.shop.pop());
            sleep(Duration::from_millis(500)).await;
            // So that the shop is whole with the one that is left.
            let registrar = world.registrars[0].as_ref().unwrap();
            for child in registrar.client().list_children("/services/shop").await.unwrap() {
                if child != world.shop[0].name() {
                    registrar.client().delete(&format!("/services/shop/{child}"), None).await.unwrap();
                }
            }
        })
        .await;

    let table = world.table();
    println!("{table}in {:?}", began.elapsed());
    let failed: Vec<_> = world.rows.iter().filter(|row| !row.failures.is_empty()).collect();
    let told: Vec<_> = failed.iter().map(|row| (row.fault, &row.failures[..row.failures.len().min(5)])).collect();
    assert!(failed.is_empty(), "requests failed:\n{table}{told:#?}");
    assert!(world.rows.iter().all(|row| row.requests > 50), "too little load:\n{table}");
    assert!(world.rows.iter().all(|row| row.followed < LATEST), "too late:\n{table}");
}
