//! What real libraries wrote, see `tests/registrars/record`, is written again into a real ZooKeeper and read by one
//! source with a root for each layout.

use std::collections::BTreeMap;
use std::path::Path;

use moongate::config::{self, Layout, Root, Roots};
use moongate::registry::{Scheme, Service, State, View};
use serde::Deserialize;
use zookeeper_client::{Acls, Client, CreateMode};

use super::{Source, settings, unique_root};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::origin::Origin;
use crate::support::zookeeper::{Server, connect};

#[derive(Deserialize)]
struct Znode {
    path: String,
    body: String,
    ephemeral: bool,
}

const LAYOUTS: [Layout; 5] = [Layout::Registrator, Layout::Curator, Layout::Serverset, Layout::Nerve, Layout::Dubbo];

/// What was recorded of a layout, parents first.
fn sample(layout: Layout) -> Vec<Znode> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/registry/samples/{layout}.json"));
    let all: Vec<Znode> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(all.iter().any(|znode| znode.ephemeral), "nothing was registered in the sample of {layout}");
    all
}

async fn write(client: &Client, top: &str, znodes: &[Znode]) {
    for Znode { path, body, ephemeral } in znodes {
        let mode = if *ephemeral { CreateMode::Ephemeral } else { CreateMode::Persistent };
        let options = mode.with_acls(Acls::anyone_all());
        client.create(&format!("{top}{path}"), body.as_bytes(), &options).await.unwrap();
    }
}

/// A place where all samples are, and a client that holds them.
async fn recorded() -> (Client, String) {
    let (client, top) = (connect(Server::shared()).await, unique_root());
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(&top, b"", &options).await.unwrap();
    for layout in LAYOUTS {
        write(&client, &top, &sample(layout)).await;
    }
    (client, top)
}

/// A source that reads them all; with `auto`, it is not told how they are written.
fn follow(top: &str, auto: bool) -> Source {
    let root = |layout: Layout| Root {
        layout: (!auto).then_some(layout),
        prefix: format!("{layout}.").into(),
        ..Root::at(&format!("{top}{}", sample(layout)[0].path))
    };
    let roots = Roots(LAYOUTS.map(root).to_vec());
    let config = config::ZooKeeper { root: roots, ..settings(&Server::shared().connect_string(), "/") };
    Source::start(config)
}

/// Address, weight, zone and scheme of each endpoint, by service.
fn told(view: &View) -> BTreeMap<&str, Vec<String>> {
    let endpoints = |service: &Service| {
        let line =
            |it: &moongate::registry::Endpoint| format!("{} {} {:?} {:?}", it.address, it.weight, it.zone, it.scheme);
        service.endpoints.iter().map(line).collect()
    };
    view.services.iter().map(|(name, service)| (&**name, endpoints(service))).collect()
}

const EXPECTED: &[(&str, &[&str])] = &[
    (
        "curator.app",
        &[
            r#"10.1.1.1:8080 1 "" Http"#,
            r#"10.1.1.2:8080 30 "z1" Http"#,
            r#"10.1.1.3:8443 1 "" Https"#,
            r#"10.1.1.5:8080 1 "" Http"#,
            r#"10.1.1.7:8080 1 "" Http"#,
            r#"127.0.0.1:8081 1 "" Http"#,
        ],
    ),
    ("curator.dubbo-app", &[r#"10.1.1.6:20880 1 "" Http"#]),
    ("dubbo.org.x.Demo", &[r#"10.3.3.1:50051 100 "" H2c"#, r#"10.3.3.2:20880 200 "z1" Http"#]),
    (
        "nerve.web",
        &[r#"10.4.4.1:3000 1 "" Http"#, r#"10.4.4.2:3000 7 "us-east-1a" Http"#, r#"10.4.4.3:3000 1 "" Http"#],
    ),
    (
        "registrator.service_1",
        &[
            r#"192.168.1.123:49153 1 "" Http"#,
            r#"192.168.1.123:49154 5 "z1" Http"#,
            r#"[2001:db8::7]:49155 1 "eu" Https"#,
        ],
    ),
    ("registrator.service_2", &[r#"127.0.0.1:3001 1 "" Http"#, r#"127.0.0.1:3002 1 "" Http"#]),
    ("serverset.web", &[r#"10.2.2.1:80 100 "" Http"#, r#"10.2.2.2:80 50 "" Http"#, r#"10.2.2.3:443 100 "" Https"#]),
];

fn expected() -> BTreeMap<&'static str, Vec<String>> {
    EXPECTED.iter().map(|(name, all)| (*name, all.iter().map(ToString::to_string).collect())).collect()
}

#[tokio::test]
async fn what_real_libraries_write_is_understood() {
    let (_held, top) = recorded().await;
    for auto in [false, true] {
        let mut source = follow(&top, auto);
        let what = format!("auto {auto}: {:#?}", expected());
        let view = source.until(|view| view.state == State::Live && told(view) == expected(), &what).await;
        for (name, service) in &*view.services {
            let layout = name.split('.').next().unwrap();
            let layouts: Vec<&str> = service.layouts.iter().map(|it| it.as_str()).collect();
            assert_eq!(layouts, [layout], "{name}, auto {auto}");
        }
        let out = |name: &str| view.services[name].out;
        assert_eq!([out("curator.app"), out("dubbo.org.x.Demo"), out("serverset.web")], [2, 1, 0]);
        assert_eq!(view.services["curator.app"].endpoints[2].scheme, Scheme::Https);
    }
}

#[tokio::test]
async fn changes_of_all_roots_are_followed_and_garbage_hides_nobody() {
    let (client, top) = recorded().await;
    let mut source = follow(&top, true);
    source.until(|view| view.state == State::Live && told(view) == expected(), "the samples").await;
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let garbage: [&[u8]; 4] =
        [b"", b"{", b"\xff\xfe\0", br#"{"host":7,"address":[],"serviceEndpoint":{},"vector":[7]}"#];
    for service in ["curator/app", "serverset/web", "nerve/web", "registrator/service_1", "dubbo/org.x.Demo/providers"]
    {
        for (number, body) in garbage.iter().enumerate() {
            for name in ["member_", "vector_", "base64_9_", "~"] {
                client.create(&format!("{top}/{service}/{name}{number}"), body, &options).await.unwrap();
            }
        }
    }
    let mut then = expected();
    // One more in each, and a weight for one that is there.
    let more = [
        ("curator/app/x", r#"{"address":"10.9.9.1","port":1}"#, "curator.app", r#"10.9.9.1:1 1 "" Http"#),
        (
            "serverset/web/member_9",
            r#"{"status":"ALIVE","serviceEndpoint":{"host":"10.9.9.2","port":1}}"#,
            "serverset.web",
            r#"10.9.9.2:1 100 "" Http"#,
        ),
        ("nerve/web/x_9", r#"{"host":"10.9.9.3","port":1}"#, "nerve.web", r#"10.9.9.3:1 1 "" Http"#),
        ("dubbo/org.x.Demo/providers/tri%3A%2F%2F10.9.9.4%3A1", "", "dubbo.org.x.Demo", r#"10.9.9.4:1 100 "" H2c"#),
    ];
    for (path, body, service, endpoint) in more {
        client.create(&format!("{top}/{path}"), body.as_bytes(), &options).await.unwrap();
        then.get_mut(service).unwrap().push(endpoint.to_owned());
    }
    let vector = br#"{"vector":[{"select":"member=member_9","weight":2.0},{"select":"shard=0","weight":-1}]}"#;
    client.create(&format!("{top}/serverset/web/vector_9"), vector, &options).await.unwrap();
    let members = then.get_mut("serverset.web").unwrap();
    members.remove(0);
    *members.last_mut().unwrap() = r#"10.9.9.2:1 200 "" Http"#.to_owned();
    then.values_mut().for_each(|all| all.sort());
    let sorted = |view: &View| -> BTreeMap<String, Vec<String>> {
        let mut all: BTreeMap<String, Vec<String>> = told(view).into_iter().map(|(a, b)| (a.to_owned(), b)).collect();
        all.values_mut().for_each(|all| all.sort());
        all
    };
    let then: BTreeMap<String, Vec<String>> = then.into_iter().map(|(name, all)| (name.to_owned(), all)).collect();
    source.until(|view| sorted(view) == then, &format!("{then:#?}")).await;
    assert_eq!(source.count(|stats| &stats.full_reads), 1, "events were enough");

    client.delete(&format!("{top}/nerve/web/x_9"), None).await.unwrap();
    client.delete(&format!("{top}/dubbo/org.x.Demo/providers/tri%3A%2F%2F10.9.9.4%3A1"), None).await.unwrap();
    let fewer =
        |view: &View| view.services["nerve.web"].endpoints.len() + view.services["dubbo.org.x.Demo"].endpoints.len();
    source.until(|view| fewer(view) == 5, "two endpoints less").await;
}

/// The whole gateway: from the configuration to a request that reaches the endpoint, and what the admin API tells.
#[tokio::test]
async fn a_gateway_serves_what_is_written_in_any_layout() {
    let (server, top) = (Server::shared(), unique_root());
    let client = connect(server).await;
    let origin = Origin::start().await;
    let port = origin.address.port();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let named = format!(r#"{{"host":"localhost","port":{port}}}"#);
    let spring =
        format!(r#"{{"address":"127.0.0.1","port":{port},"payload":{{"metadata":{{"instance_status":"UP"}}}}}}"#);
    let provider = format!("dubbo%3A%2F%2F127.0.0.1%3A{port}%2Forg.x.Demo%3Fapplication%3Ddemo");
    for (path, body) in [
        ("", ""),
        ("/mixed", ""),
        ("/mixed/spring", ""),
        ("/mixed/spring/d18c", &spring),
        ("/mixed/nerve", ""),
        ("/mixed/nerve/i-1_0000000000", &named),
        ("/dubbo", ""),
        ("/dubbo/org.x.Demo", ""),
        ("/dubbo/org.x.Demo/providers", ""),
        (&format!("/dubbo/org.x.Demo/providers/{provider}"), ""),
    ] {
        client.create(&format!("{top}{path}"), body.as_bytes(), &options).await.unwrap();
    }
    let gateway = Gateway::start(&format!(
        "[registry.zookeeper]\nservers = \"{}\"\n\
         root = [\"{top}/mixed\", {{ path = \"{top}/dubbo\", layout = \"dubbo\", prefix = \"rpc.\" }}]\n[auto_routes]\n",
        server.connect_string()
    ));
    let layout = async |service: &str| {
        let all = gateway.api("services").await;
        let service = all["services"].as_array().unwrap().iter().find(|it| it["name"] == service).cloned();
        service.unwrap()["layout"].as_str().map(str::to_owned)
    };
    for (service, expected) in [("spring", "curator"), ("nerve", "nerve"), ("rpc.org.x.Demo", "dubbo")] {
        let reached = async || get(gateway.http, &format!("/{service}/")).await.text() == origin.name();
        eventually(&format!("{service} answers"), reached).await;
        assert_eq!(layout(service).await.as_deref(), Some(expected), "{service}");
    }
}

#[tokio::test]
async fn of_two_roots_the_first_has_the_service() {
    let (client, top) = (connect(Server::shared()).await, unique_root());
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for path in ["", "/a", "/a/web", "/a/web/10.0.0.1:1", "/b", "/b/web", "/b/web/10.0.0.2:2", "/b/api"] {
        client.create(&format!("{top}{path}"), b"", &options).await.unwrap();
    }
    let roots = Roots(vec![Root::at(&format!("{top}/a")), Root::at(&format!("{top}/b"))]);
    let config = config::ZooKeeper { root: roots, ..settings(&Server::shared().connect_string(), "/") };
    let mut source = Source::start(config);
    source.shows(&[("web", &["10.0.0.1:1"]), ("api", &[])]).await;
    // Empty, it is still the first's.
    client.delete(&format!("{top}/a/web/10.0.0.1:1"), None).await.unwrap();
    source.shows(&[("web", &[]), ("api", &[])]).await;
    client.delete(&format!("{top}/a/web"), None).await.unwrap();
    source.shows(&[("web", &["10.0.0.2:2"]), ("api", &[])]).await;
}
