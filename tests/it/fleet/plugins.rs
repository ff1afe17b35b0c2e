//! Versions of plugins that ZooKeeper names by their hash, from the plugin directory and over HTTP.

use std::fs;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use moongate::fleet::plugins::hash;
use moongate::plugin::bundled::BUNDLED;
use serde_json::Value;
use zookeeper_client::Client;

use super::{persistent, unique};
use crate::support::client::get;
use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::tls::Authority;
use crate::support::zookeeper::{Server, connect};
use crate::tls::ONE;

fn wasm(name: &str) -> &'static [u8] {
    BUNDLED.iter().find(|it| it.0 == name).unwrap().1
}

/// The znode of announcements that a test has for itself, and a client that may write there.
async fn arrange() -> (Client, String) {
    let (client, root) = (connect(Server::shared()).await, unique("plugins"));
    client.mkdir(&root, &persistent()).await.unwrap();
    (client, root)
}

fn config(servers: &str, root: &str) -> String {
    format!(
        "workers = 1\n[registry.zookeeper]\nservers = \"{servers}\"\nroot = \"{root}-services\"\nplugins = \"{root}\"\n\
         session_timeout = \"2s\"\nsnapshot = \"snapshot.json\"\n[plugins]\nfetch = {{ dir = \"store\" }}\n"
    )
}

async fn announce(client: &Client, znode: &str, sha256: &str, url: Option<&str>) {
    let url = url.map(|url| format!("url = '{url}'\n")).unwrap_or_default();
    let text = format!("sha256 = '{sha256}'\n{url}");
    match client.check_stat(znode).await.unwrap() {
        Some(_) => drop(client.set_data(znode, text.as_bytes(), None).await.unwrap()),
        None => drop(client.create(znode, text.as_bytes(), &persistent()).await.unwrap()),
    }
}

async fn serves(gateway: &Gateway, sha256: &str) {
    let what = format!("{sha256} serves");
    eventually(&what, async || {
        let plugin = gateway.plugin("mine").await;
        plugin["sha256"] == sha256 && plugin["state"] == "active" && plugin["error"] == Value::Null
    })
    .await;
}

/// Serves what is in the cell as `/mine.wasm`, after a redirect.
async fn server(files: Arc<Mutex<&'static [u8]>>) -> Origin {
    Origin::answering(move |request, _| match request.uri().path() {
        "/latest" => {
            let response = Response::builder().status(302).header(header::LOCATION, "/mine.wasm");
            response.body(Full::default()).unwrap()
        }
        _ => Response::new(Full::from(Bytes::from_static(*files.lock().unwrap()))),
    })
    .await
}

#[tokio::test]
async fn only_the_version_of_the_announced_hash_serves() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    let (znode, [one, two]) = (format!("{root}/mine"), ["random", "weighted"].map(wasm));
    let gateway = Gateway::of(&[&origin], &config(&Server::shared().connect_string(), &root));
    gateway.plug_bytes("mine", one);
    serves(&gateway, &hash(one)).await;

    announce(&client, &znode, &hash(two), None).await;
    let told = async || {
        let error = gateway.plugin("mine").await["error"].clone();
        error.as_str().is_some_and(|it| it.contains(&hash(one)) && it.contains(&format!("{znode} wants {}", hash(two))))
    };
    eventually("the file is not the one", told).await;
    assert_eq!(gateway.plugin("mine").await["sha256"], hash(one), "the last good one serves");
    assert_eq!(gateway.plugin("mine").await["announced"]["sha256"], hash(two));
    gateway.plug_bytes("mine", two);
    serves(&gateway, &hash(two)).await;
    // The file may go: what is announced stays.
    gateway.unplug("mine");
    client.set_data(&znode, b"sha256 = 'x'", None).await.unwrap();
    let refused = async || {
        let error = gateway.plugin("mine").await["announced"]["error"].clone();
        error.as_str().is_some_and(|it| it.starts_with(&format!("{znode}:1:10: sha256: ")))
    };
    eventually("a bad announcement is told", refused).await;
    assert_eq!(gateway.plugin("mine").await["sha256"], hash(two));
    client.delete(&znode, None).await.unwrap();
    eventually("without announcement and file there is none", async || gateway.plugin("mine").await == Value::Null)
        .await;
}

// Starting a gateway waits on this thread, and the server of files has to answer meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_fetched_and_never_run_if_its_hash_is_another() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    let (znode, proxy) = (format!("{root}/mine"), Proxy::to(Server::shared().address));
    let [one, two] = ["random", "weighted"].map(wasm);
    let files = Arc::new(Mutex::new(one));
    let server = server(files.clone()).await;
    let url = format!("http://{}/latest", server.address);
    announce(&client, &znode, &hash(one), Some(&url)).await;
    // The configuration needs it from the first moment on.
    let config = config(&proxy.address.to_string(), &root);
    let text = format!("{config}[[routes]]\npath_prefix = '/a'\nservice = 's'\nbalancer = 'mine'\n");
    let gateway = Gateway::of(&[&origin], &text);
    serves(&gateway, &hash(one)).await;
    assert_eq!(get(gateway.http, "/a").await.status, StatusCode::OK);

    announce(&client, &znode, &hash(two), Some(&url)).await;
    let told = async || {
        let error = gateway.plugin("mine").await["announced"]["error"].clone();
        error.as_str().is_some_and(|it| it.contains(&format!("its SHA-256 is {}", hash(one))))
    };
    eventually("what is fetched is not what is wanted", told).await;
    assert_eq!(gateway.plugin("mine").await["sha256"], hash(one));
    assert_eq!(fs::read_dir(gateway.path("store")).unwrap().count(), 1, "and is not kept");
    *files.lock().unwrap() = two;
    serves(&gateway, &hash(two)).await;

    // With ZooKeeper and the server away, what was fetched is there.
    let kept =
        async || fs::read_to_string(gateway.path("snapshot.json.plugins")).is_ok_and(|it| it.contains(&hash(two)));
    eventually("the announcement is kept", kept).await;
    proxy.close();
    proxy.cut();
    drop(server);
    let second = gateway.beside(&[]);
    serves(&second, &hash(two)).await;
    assert_eq!(get(second.http, "/a").await.status, StatusCode::OK);
}

/// The server of files is a gateway too, with a certificate of an authority that the other trusts by `ca`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_comes_over_tls_from_who_it_should_be() {
    let ((client, root), origin) = (arrange().await, Origin::start().await);
    let one = wasm("random");
    let files = server(Arc::new(Mutex::new(one))).await;
    let (dir, ours, theirs) = (tempfile::TempDir::new().unwrap(), Authority::new("ours"), Authority::new("theirs"));
    ours.issue(&["127.0.0.1"]).write(dir.path(), "a");
    ours.write(&dir.path().join("ours.pem"));
    theirs.write(&dir.path().join("theirs.pem"));
    let authority = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let (ours, theirs) = (authority("ours.pem"), authority("theirs.pem"));
    fs::write(dir.path().join("services.toml"), services("s", &[&files])).unwrap();
    let registry = "[registry.file]\npath = \"services.toml\"\n[auto_routes]\n";
    let listener = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{ONE}\n");
    let secure = Gateway::start_in(dir, &format!("{listener}{registry}"));
    let (znode, url) = (format!("{root}/mine"), format!("https://{}/s/mine.wasm", secure.listeners[1]));
    announce(&client, &znode, &hash(one), Some(&url)).await;

    let config = config(&Server::shared().connect_string(), &root);
    let config = config.replace("dir = \"store\"", "dir = \"store\", ca = \"ca.pem\"");
    let start = |authority: &str| {
        let dir = tempfile::TempDir::new().unwrap();
        fs::write(dir.path().join("ca.pem"), authority).unwrap();
        fs::write(dir.path().join("services.toml"), services("s", &[&origin])).unwrap();
        Gateway::start_in(dir, &format!("{config}{registry}"))
    };
    let stranger = start(&theirs);
    let told = async || {
        let error = stranger.plugin("mine").await["announced"]["error"].clone();
        error.as_str().is_some_and(|it| it.contains("the TLS handshake"))
    };
    eventually("who has no certificate of the authority is not asked", told).await;
    assert_ne!(stranger.plugin("mine").await["state"], "active");
    serves(&start(&ours), &hash(one)).await;
}
