//! The source and a server before 3.6. None is packaged, so one of today's stands behind [`Old`], which answers as those
//! do to what they do not know.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use moongate::config::{self, Retention, Root, Roots};
use moongate::registry::State;
use zookeeper_client::{Acls, CreateMode};

use super::outages::truth;
use super::{Source, set, settings, shown, unique_root};
use crate::support::eventually;
use crate::support::zookeeper::{Registrar, Server, connect};

/// Operations that came with 3.5 (create2, removeWatches, those of containers and time-to-live), and with 3.6: multiRead,
/// whoAmI, addWatch.
const UNKNOWN: [i32; 7] = [15, REMOVE_WATCHES, 19, 21, 22, ADD_WATCH, 107];
const REMOVE_WATCHES: i32 = 18;
const ADD_WATCH: i32 = 106;

/// Refuses what [`UNKNOWN`] names, and ends the connection, as `UnimplementedRequestProcessor` of the old servers does.
/// Restores no watches: whoever asks for it gets no further.
struct Old {
    address: SocketAddr,
    /// What was refused.
    refused: Arc<Mutex<Vec<i32>>>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Old {
    fn before(server: SocketAddr) -> Old {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let old = Old { address: listener.local_addr().unwrap(), refused: Arc::default(), sockets: Arc::default() };
        let (refused, sockets) = (old.refused.clone(), old.sockets.clone());
        thread::spawn(move || {
            // Until the test process ends.
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                sockets.lock().unwrap().push(client.try_clone().unwrap());
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let refused = refused.clone();
                thread::spawn(move || {
                    let _ = requests(&client, &server, &refused);
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = server.shutdown(Shutdown::Both);
                });
            }
        });
        old
    }

    fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Passes on requests until one is refused.
fn requests(mut client: &TcpStream, mut server: &TcpStream, refused: &Mutex<Vec<i32>>) -> std::io::Result<()> {
    let mut first = true;
    loop {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut request)?;
        let word = |at: usize| i32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        // The first has no operation; it opens the session.
        if !std::mem::take(&mut first) && UNKNOWN.contains(&word(4)) {
            refused.lock().unwrap().push(word(4));
            let answer = [&16i32.to_be_bytes()[..], &word(0).to_be_bytes(), &[0; 8], &(-6i32).to_be_bytes()].concat();
            return client.write_all(&answer);
        }
        // At once: of two writes the second would wait until the first is acknowledged.
        server.write_all(&[&length[..], &request].concat())?;
    }
}

async fn arrange() -> (Registrar, Source, Old) {
    let (server, root) = (Server::shared(), unique_root());
    let registrar = Registrar::start(server, &root).await;
    let old = Old::before(server.address);
    // Nothing is retained, so that the view must be the truth and nothing besides.
    let retain = Retention(Duration::ZERO);
    let source = Source::start(config::ZooKeeper { retain, ..settings(&old.address.to_string(), &root) });
    (registrar, source, old)
}

#[tokio::test]
async fn endpoints_of_an_old_server_come_and_go() {
    let (registrar, mut source, old) = arrange().await;
    source.shows(&[]).await;
    assert_eq!(*old.refused.lock().unwrap(), [ADD_WATCH], "it was tried once");
    registrar.register("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    registrar.register("a", "10.0.0.2:80").await;
    let (client, root) = (registrar.client(), registrar.root());
    let body = |port: u16| format!("{{\"IP\":\"10.0.0.3\",\"PublicPort\":{port}}}").into_bytes();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    client.create(&format!("{root}/b"), b"", &options).await.unwrap();
    client.create(&format!("{root}/b/by-body"), &body(80), &options).await.unwrap();
    for port in [81, 82, 83] {
        client.set_data(&format!("{root}/b/by-body"), &body(port), None).await.unwrap();
        let told = format!("10.0.0.3:{port}");
        source.shows(&[("a", &["10.0.0.1:80", "10.0.0.2:80"]), ("b", &[&told])]).await;
    }
    registrar.deregister("a", "10.0.0.1:80").await;
    client.delete(&format!("{root}/b/by-body"), None).await.unwrap();
    client.delete(&format!("{root}/b"), None).await.unwrap();
    source.shows(&[("a", &["10.0.0.2:80"])]).await;
    registrar.deregister("a", "10.0.0.2:80").await;
    source.shows(&[]).await;
    assert_eq!(source.count(|stats| &stats.sessions), 1, "one session was enough");
    assert_eq!(source.count(|stats| &stats.differences), 0);
}

#[tokio::test]
async fn a_root_of_an_old_server_may_be_missing_and_dubbo_is_followed() {
    let (server, root) = (Server::shared(), unique_root());
    let old = Old::before(server.address);
    let mut source = Source::start(settings(&old.address.to_string(), &root));
    source.shows(&[]).await;
    let registrar = Registrar::start(server, &root).await;
    let client = registrar.client();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for path in ["/com.acme.Shop", "/com.acme.Shop/providers"] {
        client.create(&format!("{root}{path}"), b"", &options).await.unwrap();
    }
    let provider = |port: u16| format!("{root}/com.acme.Shop/providers/tri%3A%2F%2F10.0.0.1%3A{port}%2Fcom.acme.Shop");
    client.create(&provider(80), b"", &options).await.unwrap();
    source.shows(&[("com.acme.Shop", &["10.0.0.1:80"])]).await;
    client.create(&provider(81), b"", &options).await.unwrap();
    source.shows(&[("com.acme.Shop", &["10.0.0.1:80", "10.0.0.1:81"])]).await;
    client.delete(&provider(80), None).await.unwrap();
    source.shows(&[("com.acme.Shop", &["10.0.0.1:81"])]).await;
}

#[tokio::test]
async fn a_root_of_an_old_server_that_may_not_be_read_harms_no_other() {
    let (server, top) = (Server::shared(), unique_root());
    let registrar = Registrar::start(server, &format!("{top}-open")).await;
    let owner = connect(server).await;
    owner.auth("digest", b"user:secret").await.unwrap();
    let (closed, options) = (format!("{top}-closed"), CreateMode::Persistent.with_acls(Acls::creator_all()));
    owner.create(&closed, b"", &options).await.unwrap();
    let everybody = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for path in ["/b", "/b/10.0.0.9:80"] {
        owner.create(&format!("{closed}{path}"), b"", &everybody).await.unwrap();
    }
    let old = Old::before(server.address);
    let roots = Roots([&closed, registrar.root()].map(Root::at).to_vec());
    let mut source = Source::start(config::ZooKeeper { root: roots, ..settings(&old.address.to_string(), "/") });
    source.shows(&[]).await;
    registrar.register("a", "10.0.0.1:80").await;
    source.shows(&[("a", &["10.0.0.1:80"])]).await;
    owner.set_acl(&closed, &Acls::anyone_all(), None).await.unwrap();
    source.shows(&[("a", &["10.0.0.1:80"]), ("b", &["10.0.0.9:80"])]).await;
}

#[tokio::test]
async fn after_cuts_and_many_changes_the_view_of_an_old_server_is_the_truth() {
    let (registrar, mut source, old) = arrange().await;
    source.shows(&[]).await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut there = std::collections::BTreeSet::new();
    for round in 0..400 {
        let (service, address) = (format!("s{}", random.u8(..6)), format!("10.0.0.{}:80", random.u8(1..8)));
        match there.insert((service.clone(), address.clone())) {
            true => registrar.register(&service, &address).await,
            false => {
                there.remove(&(service.clone(), address.clone()));
                registrar.deregister(&service, &address).await;
            }
        }
        if round % 100 == 50 {
            let before = source.count(|stats| &stats.sessions);
            old.cut();
            // It is not used beyond its connection.
            eventually("a new session", async || source.count(|stats| &stats.sessions) > before).await;
        }
    }
    let (client, root) = (registrar.client(), registrar.root());
    let last = set(&["10.0.0.9:80"]);
    registrar.register("last", "10.0.0.9:80").await;
    source
        .until(|view| view.state == State::Live && shown(&view.services).get("last") == Some(&last), "the last change")
        .await;
    eventually("the view is the truth", async || {
        shown(&source.views.borrow().services) == truth(client, root).await.unwrap()
    })
    .await;
    // Sessions that are given up may still say that they want no watches any more.
    let refused: Vec<i32> = old.refused.lock().unwrap().iter().copied().filter(|it| *it != REMOVE_WATCHES).collect();
    assert_eq!(refused, [ADD_WATCH], "nothing else that such a server does not know");
}
