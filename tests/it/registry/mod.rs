//! The ZooKeeper source against a real server that stays up; [`outages`] has the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moongate::config::{self, Root, Roots, Secret, Servers, Time};
use moongate::registry::{Service, Services, State, Stats, View, zookeeper};
use tokio::sync::watch;
use zookeeper_client::{Acl, Acls, AuthId, CreateMode, Permission};

use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::zookeeper::{Registrar, Server, connect};

mod layouts;
mod matrix;
mod old;
mod outages;
mod scale;
mod secure;
mod tiers;

/// A root that no other test of the run uses.
fn unique_root() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/services-{}", NEXT.fetch_add(1, Relaxed))
}

fn settings(servers: &str, root: &str) -> config::ZooKeeper {
    config::ZooKeeper {
        servers: Servers(servers.into()),
        root: Roots(vec![Root::at(root)]),
        session_timeout: Time(Duration::from_secs(4)),
        ..Default::default()
    }
}

/// A source that runs, until it is dropped.
struct Source {
    views: watch::Receiver<View>,
    stats: Arc<Stats>,
    task: tokio::task::JoinHandle<()>,
}

impl Source {
    fn start(config: config::ZooKeeper) -> Source {
        let (out, views) = watch::channel(View::default());
        let stats = Arc::new(Stats::default());
        let counted = stats.clone();
        let task = tokio::spawn(async move { zookeeper::run(&config, out, counted).await });
        Source { views, stats, task }
    }

    /// Waits for a live view that shows exactly this: services with their endpoints.
    async fn shows(&mut self, expected: &[(&str, &[&str])]) {
        let expected: Shown = expected.iter().map(|(name, all)| (name.to_string(), set(all))).collect();
        self.until(|view| view.state == State::Live && shown(&view.services) == expected, &format!("{expected:?}"))
            .await;
    }

    async fn is(&mut self, state: State) -> View {
        self.until(|view| view.state == state, &format!("{state:?}")).await
    }

    async fn until(&mut self, condition: impl FnMut(&View) -> bool, what: &str) -> View {
        let found = async { self.views.wait_for(condition).await.expect("the source ended").clone() };
        match tokio::time::timeout(Duration::from_secs(30), found).await {
            Ok(view) => view,
            Err(_) => panic!("waited in vain for {what}, and see {:?}", *self.views.borrow()),
        }
    }

    fn count(&self, counter: impl Fn(&Stats) -> &AtomicU64) -> u64 {
        counter(&self.stats).load(Relaxed)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shown = BTreeMap<String, BTreeSet<String>>;

fn shown(services: &Services) -> Shown {
    let addresses = |service: &Service| service.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    services.iter().map(|(name, service)| (name.to_string(), addresses(service))).collect()
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(ToString::to_string).collect()
}

async fn arrange() -> (Registrar, Source) {
    let (server, root) = (Server::shared(), unique_root());
    let registrar = Registrar::start(server, &root).await;
    (registrar, Source::start(settings(&server.connect_string(), &root)))
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let (registrar, mut source) = arrange().await;
    source.shows(&[]).await;
    registrar.register("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    registrar.register("a", "10.0.0.2:80").await;
    registrar.register("b", "10.0.0.3:80").await;
    source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"]), ("b", &["10.0.0.3:80"])]).await;
    let before = source.views.borrow().services["b"].clone();
    registrar.deregister("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.2:80"]), ("b", &["10.0.0.3:80"])]).await;
    registrar.deregister("a", "10.0.0.2:80").await;
    source.shows(&[("b", &["10.0.0.3:80"])]).await;
    registrar.register("a", "10.0.0.1:81").await;
    source.shows(&[("a", &["10.0.0.1:81"]), ("b", &["10.0.0.3:80"])]).await;
    assert!(Arc::ptr_eq(&before, &source.views.borrow().services["b"]), "an unchanged service keeps its Arc");
    assert_eq!(source.count(|stats| &stats.full_reads), 1, "events were enough");
}

#[tokio::test]
async fn the_end_of_a_registrar_leaves_services_without_endpoints() {
    let (registrar, mut source) = arrange().await;
    registrar.register("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    drop(registrar);
    source.shows(&[("a", &[])]).await;
}

#[tokio::test]
async fn bodies_are_read_and_bad_ones_harm_nobody() {
    let (registrar, mut source) = arrange().await;
    registrar.register_with("a", "10.0.0.1:80", r#"["x"]"#, r#"{"weight":"7","zone":"z"}"#).await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    let endpoint = source.views.borrow().services["a"].endpoints[0].clone();
    assert_eq!((endpoint.weight, &*endpoint.zone, endpoint.labels.len()), (7, "z", 2));
    let client = registrar.client();
    let root = registrar.root();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for (name, body) in
        [("10.0.0.2:80", &b"{"[..]), ("10.0.0.3:80", b"\xff\xfe"), ("nonsense", b"{}"), ("10.0.0.4:0", b"")]
    {
        client.create(&format!("{root}/a/{name}"), body, &options).await.unwrap();
    }
    client.create(&format!("{root}/a/by-body"), br#"{"IP":"10.0.0.5","PublicPort":81}"#, &options).await.unwrap();
    source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.5:81"])]).await;
    assert_eq!(source.count(|stats| &stats.bad_entries), 2);
    client.set_data(&format!("{root}/a/by-body"), br#"{"IP":"10.0.0.6","PublicPort":82}"#, None).await.unwrap();
    source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.6:82"])]).await;
}

#[tokio::test]
async fn names_are_opaque() {
    let (registrar, mut source) = arrange().await;
    let names = ["two words", "服务", "a%2Fb", "what?", "a#b", "...", "zookeeper", "a:b", "%"];
    for name in &names {
        registrar.register(name, "10.0.0.1:80").await;
    }
    let expected: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, &["10.0.0.1:80"][..])).collect();
    source.shows(&expected).await;
}

#[tokio::test]
async fn a_root_that_is_missing_is_an_empty_registry() {
    let (server, root) = (Server::shared(), unique_root());
    let mut source = Source::start(settings(&server.connect_string(), &root));
    source.shows(&[]).await;
    let registrar = Registrar::start(server, &root).await;
    registrar.register("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    registrar.deregister("a", "10.0.0.1:80").await;
    source.shows(&[]).await;
    registrar.client().delete(&root, None).await.unwrap();
    let registrar = Registrar::start(server, &root).await;
    registrar.register("b", "10.0.0.1:80").await;
    source.shows(&[("b", &["10.0.0.1:80"])]).await;
}

#[tokio::test]
async fn the_servers_may_have_a_chroot() {
    let (server, chroot) = (Server::shared(), unique_root());
    let _parent = Registrar::start(server, &chroot).await;
    let registrar = Registrar::start(server, &format!("{chroot}/services")).await;
    let mut source = Source::start(settings(&format!("{}{chroot}", server.connect_string()), "/services"));
    source.shows(&[]).await;
    registrar.register("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    // And everything below the chroot may be the registry.
    let mut source = Source::start(settings(&format!("{}{chroot}/services", server.connect_string()), "/"));
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    registrar.deregister("a", "10.0.0.1:80").await;
    source.shows(&[]).await;
}

#[tokio::test]
async fn what_is_no_endpoint_is_no_news() {
    let (registrar, mut source) = arrange().await;
    let root = registrar.root().to_owned();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    registrar.client().create(&format!("{root}/a"), b"", &options).await.unwrap();
    registrar.client().create(&format!("{root}/a/10.0.0.1:80"), b"", &options).await.unwrap();
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    let published = source.count(|stats| &stats.publishes);
    registrar.client().create(&format!("{root}/a/10.0.0.1:80/deeper"), b"", &options).await.unwrap();
    registrar.client().set_data(&format!("{root}/a"), b"{}", None).await.unwrap();
    registrar.client().set_data(&root, b"{}", None).await.unwrap();
    registrar.client().create(&format!("{root}/a/10.0.0.2:80"), b"", &options).await.unwrap();
    source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
    assert_eq!(source.count(|stats| &stats.publishes), published + 1);
}

#[tokio::test]
async fn a_service_that_may_not_be_read_harms_no_other() {
    let (registrar, mut source) = arrange().await;
    let (server, root) = (Server::shared(), registrar.root().to_owned());
    registrar.register("open", "10.0.0.1:80").await;
    let owner = connect(server).await;
    owner.auth("digest", b"user:secret").await.unwrap();
    let options = CreateMode::Persistent.with_acls(Acls::creator_all());
    owner.create(&format!("{root}/closed"), b"", &options).await.unwrap();
    owner.create(&format!("{root}/closed/10.0.0.9:80"), b"", &options).await.unwrap();
    registrar.register("open", "10.0.0.2:80").await;
    source
        .until(|view| view.services.get("open").is_some_and(|open| open.endpoints.len() == 2), "the open service")
        .await;
    // A session that starts now sees it in a whole read, and still follows the other.
    let proxy = Proxy::to(server.address);
    let mut late = Source::start(settings(&proxy.address.to_string(), &root));
    late.shows(&[("closed", &[]), ("open", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
    registrar.deregister("open", "10.0.0.1:80").await;
    late.shows(&[("closed", &[]), ("open", &["10.0.0.2:80"])]).await;
    let auth = Some(Secret("digest:user:secret".into()));
    let mut trusted = Source::start(config::ZooKeeper { auth, ..settings(&server.connect_string(), &root) });
    trusted.shows(&[("closed", &["10.0.0.9:80"]), ("open", &["10.0.0.2:80"])]).await;
    owner.create(&format!("{root}/closed/10.0.0.8:80"), b"", &options).await.unwrap();
    trusted.shows(&[("closed", &["10.0.0.8:80", "10.0.0.9:80"]), ("open", &["10.0.0.2:80"])]).await;
    // Closed later, it keeps what was known, also over a whole read.
    let nobody = [Acl::new(Permission::ALL, AuthId::new("digest", "nobody:x"))];
    registrar.client().set_acl(&format!("{root}/open"), &nobody, None).await.unwrap();
    registrar.register("other", "10.0.0.3:80").await;
    proxy.cut();
    eventually("everything is read again", async || late.count(|stats| &stats.full_reads) > 1).await;
    late.shows(&[("closed", &[]), ("open", &["10.0.0.2:80"]), ("other", &["10.0.0.3:80"])]).await;
    assert_eq!(late.count(|stats| &stats.bad_entries), 2, "each forbidden service once");
}

#[tokio::test]
async fn a_root_that_may_not_be_read_harms_no_other() {
    let (server, top) = (Server::shared(), unique_root());
    let registrar = Registrar::start(server, &format!("{top}-open")).await;
    registrar.register("a", "10.0.0.1:80").await;
    let owner = connect(server).await;
    owner.auth("digest", b"user:secret").await.unwrap();
    let (closed, options) = (format!("{top}-closed"), CreateMode::Persistent.with_acls(Acls::creator_all()));
    for path in ["", "/b", "/b/10.0.0.9:80"] {
        owner.create(&format!("{closed}{path}"), b"", &options).await.unwrap();
    }
    for order in [[&closed, registrar.root()], [registrar.root(), &closed]] {
        let roots = Roots(order.map(Root::at).to_vec());
        let config = || config::ZooKeeper { root: roots.clone(), ..settings(&server.connect_string(), "/") };
        let mut source = Source::start(config());
        source.shows(&[("a", &["10.0.0.1:80"])]).await;
        source.is(State::Live).await;
        registrar.register("a", "10.0.0.2:80").await;
        source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
        assert_eq!(source.count(|stats| &stats.full_reads), 1, "events were enough");

        // Once it may be read it is, without anybody's help; and once it may not, what was known of it stays.
        owner.set_acl(&closed, &Acls::anyone_all(), None).await.unwrap();
        owner.set_acl(&format!("{closed}/b"), &Acls::anyone_all(), None).await.unwrap();
        source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"]), ("b", &["10.0.0.9:80"])]).await;
        owner.set_acl(&closed, &Acls::creator_all(), None).await.unwrap();
        owner.set_acl(&format!("{closed}/b"), &Acls::creator_all(), None).await.unwrap();
        registrar.deregister("a", "10.0.0.2:80").await;
        source.shows(&[("a", &["10.0.0.1:80"]), ("b", &["10.0.0.9:80"])]).await;
    }
}

#[tokio::test]
async fn a_burst_becomes_few_views() {
    let (registrar, mut source) = arrange().await;
    source.shows(&[]).await;
    let before = source.count(|stats| &stats.publishes);
    let started = Instant::now();
    let names: Vec<String> = (0..10).map(|n| format!("s{n}")).collect();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let client = registrar.client();
    for name in &names {
        client.create(&format!("{}/{name}", registrar.root()), b"", &options).await.unwrap();
    }
    // A request is sent when it is made: all of them are under way together.
    let paths: Vec<String> =
        (0..1000).map(|n| format!("{}/s{}/10.0.{}.1:{}", registrar.root(), n % 10, n % 250, 1000 + n)).collect();
    let creates: Vec<_> = paths.iter().map(|path| client.create(path, b"", &options)).collect();
    for create in creates {
        create.await.unwrap();
    }
    source
        .until(|view| view.services.values().map(|service| service.endpoints.len()).sum::<usize>() == 1000, "all")
        .await;
    let most = started.elapsed().as_millis() as u64 / 10 + 2;
    let views = source.count(|stats| &stats.publishes) - before;
    assert!(views <= most, "{views} views in {:?}", started.elapsed());
}

#[tokio::test]
async fn a_transaction_becomes_one_view() {
    let (registrar, mut source) = arrange().await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let client = registrar.client();
    client.create(&format!("{}/a", registrar.root()), b"", &options).await.unwrap();
    source.shows(&[("a", &[])]).await;
    let (mut whole, mut partial) = (0, 0);
    for round in 1..=20_usize {
        let mut transaction = client.new_multi_writer();
        for n in 0..10 {
            transaction.add_create(&format!("{}/a/10.0.{round}.{n}:80", registrar.root()), b"", &options).unwrap();
        }
        transaction.commit().await.unwrap();
        while source.views.borrow_and_update().services["a"].endpoints.len() < round * 10 {
            let length = source.views.borrow().services["a"].endpoints.len();
            if length % 10 == 0 {
                whole += 1
            } else {
                partial += 1
            }
            source.views.changed().await.unwrap();
        }
    }
    // Not a promise: on a busy machine the events of one transaction may come apart.
    assert!(partial <= 3, "{partial} partial views, {whole} whole ones");
}
