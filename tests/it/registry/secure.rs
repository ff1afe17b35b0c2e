//! Servers that want TLS, or know their clients by SASL, and one that has lost its ensemble.

use std::time::Duration;

use moongate::config::tls::EndpointTls;
use moongate::config::{self, Secret};
use moongate::registry::State;
use tempfile::TempDir;
use zookeeper_client::{Acl, Acls, AuthId, CreateMode, Permission};

use super::{Source, settings, unique_root};
use crate::support::ensemble::Ensemble;
use crate::support::eventually;
use crate::support::tls::Authority;
use crate::support::zookeeper::{Registrar, Server, connect, free_address};

/// `[registry.zookeeper.tls]` as it is written.
fn tls(text: &str, dir: &TempDir) -> Option<EndpointTls> {
    let mut tls: EndpointTls = toml::from_str(text).unwrap();
    tls.resolve(dir.path());
    Some(tls)
}

#[tokio::test]
async fn with_tls_both_sides_show_who_they_are() {
    let dir = TempDir::new().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write(&dir.path().join("ca.pem"));
    theirs.write(&dir.path().join("theirs.pem"));
    ours.issue(&["zookeeper.test", "127.0.0.1"]).write(dir.path(), "server");
    ours.issue(&["gateway.test"]).write(dir.path(), "client");
    theirs.issue(&["gateway.test"]).write(dir.path(), "stranger");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let secure = free_address();
    let config = format!(
        "secureClientPort={}\nsecureClientPortAddress=127.0.0.1\n\
         serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
         ssl.keyStore.location={{dir}}/server.pem\nssl.keyStore.type=PEM\n\
         ssl.trustStore.location={{dir}}/ca.pem\nssl.trustStore.type=PEM\nssl.clientAuth=need\n",
        secure.port()
    );
    // Key and certificates in one file, as the server wants them.
    let pair = read("server.key") + &read("server.pem");
    let server = Server::prepare(&[("server.pem", &pair), ("ca.pem", &read("ca.pem"))], &config, &[]);
    server.restart();
    let registrar = Registrar::start(&server, "/services").await;
    registrar.register("a", "10.0.0.1:80").await;

    let with = |text: &str| {
        Source::start(config::ZooKeeper { tls: tls(text, &dir), ..settings(&secure.to_string(), "/services") })
    };
    let pair = "certificate = \"client.pem\"\nkey = \"client.key\"\n";
    let refused = [
        with(&format!("ca = \"theirs.pem\"\n{pair}")),
        with(&format!("ca = \"ca.pem\"\nserver_name = \"other.test\"\n{pair}")),
        with("ca = \"ca.pem\"\ncertificate = \"stranger.pem\"\nkey = \"stranger.key\"\n"),
        with("ca = \"ca.pem\"\n"),
        Source::start(settings(&secure.to_string(), "/services")),
    ];
    for text in
        [format!("ca = \"ca.pem\"\n{pair}"), format!("ca = \"ca.pem\"\nserver_name = \"zookeeper.test\"\n{pair}")]
    {
        let mut source = with(&text);
        source.shows(&[("a", &["10.0.0.1:80"])]).await;
        registrar.register("a", "10.0.0.2:80").await;
        source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
        registrar.deregister("a", "10.0.0.2:80").await;
        source.shows(&[("a", &["10.0.0.1:80"])]).await;
    }
    // They had as much time as those that were let in.
    for source in refused {
        assert_eq!(source.views.borrow().state, State::Starting);
        assert_eq!(source.count(|stats| &stats.sessions), 0);
    }
}

#[tokio::test]
async fn with_sasl_a_service_is_shown_to_those_who_may_see_it() {
    let jaas = "Server { org.apache.zookeeper.server.auth.DigestLoginModule required user_gateway=\"secret\"; };\n";
    let provider = "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider\n";
    let server =
        Server::prepare(&[("jaas.conf", jaas)], provider, &["-Djava.security.auth.login.config={dir}/jaas.conf"]);
    server.restart();
    let client = connect(&server).await;
    let anyone = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let gateway = [Acl::new(Permission::ALL, AuthId::new("sasl", "gateway"))];
    let closed = CreateMode::Persistent.with_acls(Acls::from(&gateway[..]));
    client.create("/services", b"", &anyone).await.unwrap();
    client.create("/services/open", b"", &anyone).await.unwrap();
    client.create("/services/closed", b"", &anyone).await.unwrap();
    client.create("/services/closed/10.0.0.1:80", br#"{"Attrs":{"weight":"7"}}"#, &closed).await.unwrap();
    client.set_acl("/services/closed", &gateway, None).await.unwrap();

    let with = |auth: &str| {
        let auth = Some(Secret(auth.into()));
        Source::start(config::ZooKeeper { auth, ..settings(&server.connect_string(), "/services") })
    };
    with("sasl:gateway:secret").shows(&[("closed", &["10.0.0.1:80"]), ("open", &[])]).await;
    Source::start(settings(&server.connect_string(), "/services")).shows(&[("closed", &[]), ("open", &[])]).await;
    let wrong = with("sasl:gateway:wrong");
    with("sasl:gateway:secret").shows(&[("closed", &["10.0.0.1:80"]), ("open", &[])]).await;
    assert!(!wrong.views.borrow().services.contains_key("closed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lost_its_ensemble_is_read_where_that_is_wanted() {
    let ensemble =
        tokio::task::block_in_place(|| Ensemble::with("localSessionsEnabled=true\n", &["-Dreadonlymode.enabled=true"]));
    let root = unique_root();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let client = ensemble.connect(Duration::from_secs(4)).await;
    for path in ["", "/a", "/a/10.0.0.1:80"] {
        client.create(&format!("{root}{path}"), b"", &options).await.unwrap();
    }
    let config = settings(&ensemble.connect_string(), &root);
    let mut reads = Source::start(config::ZooKeeper { read_only: true, ..config.clone() });
    let mut writes = Source::start(config);
    reads.shows(&[("a", &["10.0.0.1:80"])]).await;
    writes.shows(&[("a", &["10.0.0.1:80"])]).await;
    tokio::task::block_in_place(|| ensemble.servers[..2].iter().for_each(Server::kill));
    writes.is(State::Stale).await;
    eventually("the last server reads", async || {
        tokio::task::block_in_place(|| ensemble.servers[2].mode()).as_deref() == Some("read-only")
    })
    .await;
    reads.is(State::Live).await;
    // One that starts now knows everything, too.
    let config = settings(&ensemble.connect_string(), &root);
    let mut late = Source::start(config::ZooKeeper { read_only: true, ..config });
    late.shows(&[("a", &["10.0.0.1:80"])]).await;
    assert_eq!(writes.views.borrow().state, State::Stale);
    tokio::task::block_in_place(|| ensemble.servers[..2].iter().for_each(Server::begin));
    writes.is(State::Live).await;
    let client = ensemble.connect(Duration::from_secs(4)).await;
    client.create(&format!("{root}/a/10.0.0.2:80"), b"", &options).await.unwrap();
    for source in [&mut reads, &mut writes, &mut late] {
        source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"])]).await;
    }
}
