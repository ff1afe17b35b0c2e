//! TLS towards endpoints: who they are, what they speak, and authorities that change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use moongate::config::tls::EndpointTls;
use moongate::config::{Protocol, file};
use moongate::stream::Stream;
use moongate::tls::{Acceptor, Connector, Followed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::eventually;
use crate::support::tls::{Authority, replace};
use crate::tls::ONE;

/// An endpoint that says over TLS what it knows of its client: the name asked for, and whether it showed a certificate.
async fn endpoint(dir: &Path, listener: &str) -> SocketAddr {
    let text = format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{listener}");
    let config = file::parse(&text, &dir.join("endpoint.toml")).unwrap();
    let listener = config.listeners[0].get_ref();
    let tls = listener.tls.as_ref().unwrap();
    let (acceptor, _) = Acceptor::load(listener.address, tls, &listener.protocols).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok((mut stream, protocol)) = acceptor.accept(stream, address).await else { return };
                let Stream::Tls(tls) = &stream else { panic!("not encrypted") };
                let tokio_rustls::TlsStream::Server(server) = &**tls else { panic!("not a server") };
                let session = server.get_ref().1;
                let certificates = session.peer_certificates().map_or(0, <[_]>::len);
                let told = format!("{protocol:?} {:?} {certificates}", session.server_name());
                stream.write_all(told.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            });
        }
    });
    address
}

fn connector(dir: &Path, text: &str) -> Arc<Connector> {
    let mut tls: EndpointTls = toml::from_str(text).unwrap();
    tls.resolve(dir);
    Connector::load("service s", &tls).unwrap().0
}

/// What the endpoint said, or why there is no connection.
async fn told(connector: &Connector, address: SocketAddr, protocol: Protocol) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect(stream, address.ip(), protocol).await;
    let mut stream = stream.map_err(|error| error.to_string())?;
    assert!(stream.is_tls() && stream.peer_addr().unwrap() == address);
    let mut told = String::new();
    stream.read_to_string(&mut told).await.map_err(|error| error.to_string())?;
    Ok(told)
}

#[tokio::test]
async fn endpoints_are_who_they_should_be() {
    let (dir, ours, theirs) = (TempDir::new().unwrap(), Authority::new("ours"), Authority::new("theirs"));
    let dir = dir.path();
    ours.write(&dir.join("ca.pem"));
    theirs.write(&dir.join("other.pem"));
    ours.issue(&["127.0.0.1"]).write(dir, "address");
    ours.issue(&["shop.internal"]).write(dir, "name");
    ours.issue(&["gateway"]).write(dir, "client");
    let of = |name: &str| format!("tls.certificates = [{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}]");
    let (by_address, by_name) = (endpoint(dir, &of("address")).await, endpoint(dir, &of("name")).await);
    let told = async |text: &str, address| told(&connector(dir, text), address, Protocol::Http1).await;

    assert_eq!(told("ca = 'ca.pem'", by_address).await.unwrap(), "Http1 None 0");
    let another = told("ca = 'ca.pem'", by_name).await.unwrap_err();
    assert!(another.contains("certificate not valid for name"), "{another}");
    let named = "ca = 'ca.pem'\nserver_name = 'shop.internal'";
    assert_eq!(told(named, by_name).await.unwrap(), "Http1 Some(\"shop.internal\") 0");
    assert!(told(named, by_address).await.is_err());
    for refused in ["ca = 'other.pem'", "", "server_name = '127.0.0.1'"] {
        let error = told(refused, by_address).await.unwrap_err();
        let unknown = error.contains("UnknownIssuer") || error.contains("this system trusts no authority");
        assert!(unknown, "{refused}: {error}");
    }
    assert_eq!(told("verify = false", by_name).await.unwrap(), "Http1 None 0");

    let strict = endpoint(dir, &format!("{}\ntls.client_ca = \"ca.pem\"", of("address"))).await;
    assert!(told("ca = 'ca.pem'", strict).await.is_err(), "it wants a certificate");
    let identity = "ca = 'ca.pem'\ncertificate = 'client.pem'\nkey = 'client.key'";
    assert_eq!(told(identity, strict).await.unwrap(), "Http1 None 1");
}

#[tokio::test]
async fn http2_is_spoken_with_endpoints_that_say_so() {
    let (dir, ours) = (TempDir::new().unwrap(), Authority::new("ours"));
    let dir = dir.path();
    ours.write(&dir.join("ca.pem"));
    ours.issue(&["127.0.0.1"]).write(dir, "a");
    let connector = connector(dir, "ca = 'ca.pem'");
    let both = endpoint(dir, ONE).await;
    assert_eq!(told(&connector, both, Protocol::Http2).await.unwrap(), "Http2 None 0");
    assert_eq!(told(&connector, both, Protocol::Http1).await.unwrap(), "Http1 None 0");
    let old = endpoint(dir, &format!("protocols = [\"http/1.1\"]\n{ONE}")).await;
    assert!(told(&connector, old, Protocol::Http2).await.is_err());
}

#[tokio::test]
async fn a_new_authority_is_for_new_connections_to_endpoints() {
    let (dir, ours, theirs) = (TempDir::new().unwrap(), Authority::new("ours"), Authority::new("theirs"));
    let dir = dir.path();
    theirs.write(&dir.join("ca.pem"));
    ours.issue(&["127.0.0.1"]).write(dir, "a");
    let (connector, endpoint) = (connector(dir, "ca = 'ca.pem'"), endpoint(dir, ONE).await);
    let followed = Arc::new(Followed::default());
    followed.add(&connector);
    tokio::spawn(followed.follow());
    assert!(told(&connector, endpoint, Protocol::Http1).await.is_err());
    replace(&dir.join("ca.pem"), "nothing");
    assert!(told(&connector, endpoint, Protocol::Http1).await.is_err());
    ours.write(&dir.join("ca.pem"));
    eventually("it is believed", async || told(&connector, endpoint, Protocol::Http1).await.is_ok()).await;
}

#[test]
fn bad_files_for_endpoints_say_why() {
    let (dir, ours) = (TempDir::new().unwrap(), Authority::new("ours"));
    ours.issue(&["a"]).write(dir.path(), "a");
    for (text, why) in [
        ("ca = 'nowhere.pem'", "nowhere.pem: reading it: No such file"),
        ("ca = 'a.key'", "a.key: there is no certificate in it"),
        ("ca = '.'", "it is not a file"),
        ("certificate = 'a.pem'\nkey = 'a.pem'", "a.pem: there is no private key in it"),
    ] {
        let mut tls: EndpointTls = toml::from_str(text).unwrap();
        tls.resolve(dir.path());
        let Err(refused) = Connector::load("service s", &tls) else { panic!("{text} is taken") };
        assert!(refused.to_string().contains(why), "{refused}");
    }
    for half in ["certificate = 'a.pem'", "key = 'a.key'", "server_name = '*.a'", "verify = 1"] {
        assert!(toml::from_str::<EndpointTls>(half).is_err(), "{half}");
    }
}
