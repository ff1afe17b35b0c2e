//! TLS for clients and towards endpoints, with certificates made here, and how many may connect.

use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use moongate::config::file;
use rustls::{HandshakeKind, SignatureScheme, version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, get, request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, services};
use crate::support::origin::Origin;
use crate::support::service::logged;
use crate::support::tls::{Authority, Dial, Issued, agreed, replace, shown};

/// A gateway with this listener beside its plain one, and an endpoint.
struct Setup {
    gateway: Gateway,
    tls: SocketAddr,
    _origin: Origin,
}

impl Setup {
    async fn new(dir: TempDir, listener: &str, more: &str) -> Setup {
        let origin = Origin::start().await;
        fs::write(dir.path().join("services.toml"), services("s", &[&origin])).unwrap();
        let registry = "[registry.file]\npath = \"services.toml\"\n[auto_routes]\n";
        let config = format!("{more}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n{listener}\n{registry}");
        let gateway = Gateway::start_in(dir, &config);
        let tls = gateway.listeners[1];
        Setup { gateway, tls, _origin: origin }
    }

    /// With one certificate for `a.test`, in the files `a.pem` and `a.key`.
    async fn simple(more: &str) -> (Setup, Authority, Issued) {
        let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
        let issued = authority.issue(&["a.test"]);
        issued.write(dir.path(), "a");
        (Setup::new(dir, ONE, more).await, authority, issued)
    }

    /// The status of a request, or why there is none.
    async fn status(&self, dial: &Dial) -> Result<u16, String> {
        let stream = dial.to(self.tls, "a.test").await.map_err(|error| error.to_string())?;
        let reply = Client::over(stream).await.send(request("/s/", &[])).await;
        // TLS 1.3 tells a client that it is not wanted only after the client is done.
        reply.map(|it| it.status.as_u16()).map_err(|error| format!("{error:?}"))
    }
}

pub(crate) const ONE: &str = "tls = { certificates = [{ certificate = \"a.pem\", key = \"a.key\" }] }";

#[tokio::test]
async fn certificates_are_chosen_by_name_and_by_address() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let first = authority.issue(&["a.test"]);
    let wild = authority.issue(&["B.test", "*.wild.test"]);
    let exact = authority.issue(&["x.wild.test"]);
    let address = authority.issue(&["127.0.0.1"]);
    for (name, issued) in [("a", &first), ("b", &wild), ("c", &exact), ("d", &address)] {
        issued.write(dir.path(), name);
    }
    let listener = "[listeners.tls]\ncertificates = [\n{ certificate = \"a.pem\", key = \"a.key\" },\n\
                    { certificate = \"b.pem\", key = \"b.key\" },\n{ certificate = \"c.pem\", key = \"c.key\" },\n\
                    { certificate = \"d.pem\", key = \"d.key\" },\n]";
    let setup = Setup::new(dir, listener, "").await;
    for (name, wanted) in [
        ("a.test", &first),
        ("b.test", &wild),
        ("B.TEST", &wild),
        ("y.wild.test", &wild),
        ("x.wild.test", &exact),
        ("y.x.wild.test", &first),
        ("wild.test", &first),
        ("unknown.test", &first),
        ("127.0.0.1", &address),
    ] {
        let stream = Dial::new(&[]).to(setup.tls, name).await.unwrap();
        assert!(shown(&stream) == wanted.certificate, "the certificate for {name} is another");
        assert_eq!(Client::over(stream).await.get("/s/").await.status, 200);
    }
}

#[tokio::test]
async fn of_two_keys_for_a_name_a_client_gets_the_one_it_knows() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let edwards = authority.issue_with(&["a.test"], &rcgen::PKCS_ED25519, |_| {});
    let ecdsa = authority.issue(&["a.test"]);
    edwards.write(dir.path(), "a");
    ecdsa.write(dir.path(), "b");
    let listener = "tls = { certificates = [{ certificate = \"a.pem\", key = \"a.key\" }, \
                    { certificate = \"b.pem\", key = \"b.key\" }] }";
    let setup = Setup::new(dir, listener, "").await;
    let both = Dial::knowing(&[]).to(setup.tls, "a.test").await.unwrap();
    assert!(shown(&both) == edwards.certificate, "the first, which is liked best");
    let only = Dial::knowing(&[SignatureScheme::ECDSA_NISTP256_SHA256]).to(setup.tls, "a.test").await.unwrap();
    assert!(shown(&only) == ecdsa.certificate, "the only one it can check");
}

#[tokio::test]
async fn versions_are_two_unless_one_is_wanted() {
    let (setup, ..) = Setup::simple("").await;
    for version in [&version::TLS12, &version::TLS13] {
        assert_eq!(setup.status(&Dial::version(version)).await, Ok(200), "{version:?}");
    }
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    authority.issue(&["a.test"]).write(dir.path(), "a");
    let setup = Setup::new(dir, &ONE.replace("] }", "], min_version = \"1.3\" }"), "").await;
    assert_eq!(setup.status(&Dial::version(&version::TLS13)).await, Ok(200));
    let refused = setup.status(&Dial::version(&version::TLS12)).await.unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
}

#[tokio::test]
async fn protocols_are_agreed_on() {
    let (setup, ..) = Setup::simple("").await;
    for (offered, wanted) in [
        (&["h2", "http/1.1"][..], "h2"),
        (&["http/1.1", "h2"], "h2"),
        (&["http/1.1"], "http/1.1"),
        (&["spdy/3", "http/1.1"], "http/1.1"),
        (&[], ""),
    ] {
        assert_eq!(agreed(&Dial::new(offered).to(setup.tls, "a.test").await.unwrap()), wanted, "{offered:?}");
    }
    let refused = Dial::new(&["spdy/3"]).to(setup.tls, "a.test").await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    assert_eq!(setup.status(&Dial::new(&[])).await, Ok(200), "who says nothing speaks HTTP/1.1");
    let stream = Dial::new(&["h2"]).to(setup.tls, "a.test").await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let request = http::Request::get("https://a.test/s/").body(()).unwrap();
    assert_eq!(sender.send_request(request, true).unwrap().0.await.unwrap().status(), 200);

    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    authority.issue(&["a.test"]).write(dir.path(), "a");
    let setup = Setup::new(dir, &format!("protocols = [\"http/1.1\"]\n{ONE}"), "").await;
    let stream = Dial::new(&["h2", "http/1.1"]).to(setup.tls, "a.test").await.unwrap();
    assert_eq!(agreed(&stream), "http/1.1");
}

#[tokio::test]
async fn clients_show_certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (good, bad) = (ours.issue(&["client"]), theirs.issue(&["client"]));
    let expired = ours.issue_with(&["client"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let start = async |auth: &str| {
        let dir = TempDir::new().unwrap();
        ours.issue(&["a.test"]).write(dir.path(), "a");
        ours.write(&dir.path().join("ca.pem"));
        let listener = ONE.replace("] }", &format!("], client_ca = \"ca.pem\"{auth} }}"));
        Setup::new(dir, &listener, "").await
    };
    for (auth, without) in
        [("", false), (", client_auth = \"required\"", false), (", client_auth = \"optional\"", true)]
    {
        let setup = start(auth).await;
        assert_eq!(setup.status(&Dial::showing(&good)).await, Ok(200), "{auth}");
        assert_eq!(setup.status(&Dial::new(&["http/1.1"])).await.is_ok(), without, "{auth}");
        for refused in [&bad, &expired] {
            assert!(setup.status(&Dial::showing(refused)).await.is_err(), "{auth}");
        }
        let name = format!("moongate_listener_failed_handshakes_total{{listener=\"{}\"}}", setup.tls);
        let failed = if without { 2.0 } else { 3.0 };
        eventually("failed handshakes are counted", async || setup.gateway.metric(&name).await == failed).await;
    }
}

#[tokio::test]
async fn sessions_are_resumed_until_the_files_change() {
    let (setup, authority, _) = Setup::simple("").await;
    let dial = Dial::new(&["http/1.1"]);
    let kind = async || {
        let mut stream = dial.to(setup.tls, "a.test").await.unwrap();
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        // The tickets come with the first bytes.
        stream.write_all(b"GET /s/ HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        kind
    };
    assert_eq!(kind().await, HandshakeKind::Full);
    assert_eq!(kind().await, HandshakeKind::Resumed);
    authority.issue(&["a.test"]).write(setup.gateway.path("a.pem").parent().unwrap(), "a");
    eventually("the files are taken over", async || kind().await == HandshakeKind::Full).await;
    eventually("and sessions are resumed", async || kind().await == HandshakeKind::Resumed).await;
}

#[tokio::test]
async fn new_files_are_for_new_connections() {
    let (setup, authority, first) = Setup::simple("").await;
    let dial = Dial::new(&["http/1.1"]);
    let stream = dial.to(setup.tls, "a.test").await.unwrap();
    assert!(shown(&stream) == first.certificate);
    let mut kept = Client::over(stream).await;
    assert_eq!(kept.get("/s/").await.status, 200);

    let second = authority.issue(&["a.test"]);
    second.write(setup.gateway.path("").as_path(), "a");
    let is_shown = async |wanted: &Issued| {
        // Never is there a moment without any.
        let stream = Dial::new(&["http/1.1"]).to(setup.tls, "a.test").await.unwrap();
        shown(&stream) == wanted.certificate
    };
    eventually("the second certificate is shown", async || is_shown(&second).await).await;
    assert_eq!(kept.get("/s/").await.status, 200, "the connection before goes on");
}

#[tokio::test]
async fn a_replaced_link_is_a_new_file() {
    // As Kubernetes mounts secrets: a.pem -> ..data/a.pem, ..data -> ..1, and then another ..data.
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let put = |root: &Path, version: &str| {
        fs::create_dir(root.join(version)).unwrap();
        let issued = authority.issue(&["a.test"]);
        issued.write(&root.join(version), "a");
        symlink(version, root.join("..new")).unwrap();
        fs::rename(root.join("..new"), root.join("..data")).unwrap();
        issued
    };
    let first = put(dir.path(), "..1");
    for name in ["a.pem", "a.key"] {
        symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
    }
    let setup = Setup::new(dir, ONE, "").await;
    let dial = Dial::new(&["http/1.1"]);
    assert!(shown(&dial.to(setup.tls, "a.test").await.unwrap()) == first.certificate);
    let second = put(&setup.gateway.path(""), "..2");
    let is_shown = async || shown(&dial.to(setup.tls, "a.test").await.unwrap()) == second.certificate;
    eventually("the second certificate is shown", is_shown).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let (setup, authority, first) = Setup::simple("").await;
    let dial = Dial::new(&["http/1.1"]);
    let stays = async |because: &str| {
        eventually(because, async || setup.gateway.log().contains(because)).await;
        let stream = dial.to(setup.tls, "a.test").await.unwrap();
        assert!(shown(&stream) == first.certificate, "{because}");
        assert_eq!(Client::over(stream).await.get("/s/").await.status, 200);
    };
    let (certificate, key) = (setup.gateway.path("a.pem"), setup.gateway.path("a.key"));
    replace(&certificate, "not PEM at all");
    stays("there is no certificate in it").await;
    replace(&certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    stays("the certificate is bad").await;
    let second = authority.issue(&["a.test"]);
    second.write_certificate(&certificate);
    stays("the key does not belong to the certificate in").await;
    fs::remove_file(&key).unwrap();
    stays("reading it: No such file or directory").await;
    replace(&key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    stays("the key in it is encrypted").await;
    second.write(&setup.gateway.path(""), "a");
    let is_shown = async || shown(&dial.to(setup.tls, "a.test").await.unwrap()) == second.certificate;
    eventually("the good pair is taken over", is_shown).await;
}

#[tokio::test]
async fn hangup_reads_the_files_again() {
    let (setup, ..) = Setup::simple("").await;
    assert!(!setup.gateway.log().contains("TLS files taken over"));
    setup.gateway.signal("-HUP");
    eventually("the files are read", async || setup.gateway.log().contains("TLS files taken over")).await;
}

#[tokio::test]
async fn an_expired_certificate_is_warned_of_and_shown() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    let expired = authority.issue_with(&["a.test"], &rcgen::PKCS_ECDSA_P256_SHA256, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    expired.write(dir.path(), "a");
    let setup = Setup::new(dir, ONE, "").await;
    let log = setup.gateway.log();
    assert!(log.contains("a.pem: the certificate expired on 2021-01-01T00:00:00Z"), "{log}");
    assert!(shown(&Dial::new(&[]).to(setup.tls, "a.test").await.unwrap()) == expired.certificate);
}

#[test]
fn bad_files_are_told_before_anything_is_opened() {
    let (dir, authority) = (TempDir::new().unwrap(), Authority::new("ours"));
    authority.issue(&["a.test"]).write(dir.path(), "a");
    authority.issue(&["a.test"]).write(dir.path(), "b");
    let config = dir.path().join("moongate.toml");
    let certificates = "{ certificate = \"a.pem\", key = \"b.key\" }";
    let text =
        format!("[[listeners]]\naddress = \"127.0.0.1:8443\"\n[listeners.tls]\ncertificates = [{certificates}]\n");
    fs::write(&config, text + "client_ca = \"nowhere.pem\"\n[registry.file]\npath = \"services.toml\"\n").unwrap();
    let told = |command: &str| {
        let mut process = Command::new(env!("CARGO_BIN_EXE_moongate"));
        let output = process.args([command, "--config", config.to_str().unwrap()]).current_dir(&dir).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        String::from_utf8(output.stderr).unwrap()
    };
    for command in ["check", "run"] {
        let told = told(command);
        assert!(told.contains("moongate.toml:4:48: listeners[0].tls.certificates[0].key: "), "{told}");
        assert!(told.contains("b.key: the key does not belong to the certificate in "), "{told}");
        assert!(told.contains("(listener 127.0.0.1:8443)"), "{told}");
    }
    authority.issue(&["a.test"]).write(dir.path(), "a");
    fs::copy(dir.path().join("a.key"), dir.path().join("b.key")).unwrap();
    let told = told("check");
    assert!(told.contains("moongate.toml:5:13: listeners[0].tls.client_ca: "), "{told}");
    assert!(told.contains("nowhere.pem: reading it: No such file or directory"), "{told}");
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_keeps_nobody_waiting() {
    let (setup, ..) = Setup::simple("workers = 1\n[limits]\nheader_timeout = \"300ms\"").await;
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(setup.tls).await.unwrap());
    }
    // The beginning of a handshake, and then no more.
    silent[0].write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    assert_eq!(setup.status(&Dial::new(&["http/1.1"])).await, Ok(200), "the others are served meanwhile");
    for mut stream in silent {
        // Its end, however the system tells it.
        assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    }
    let name = format!("moongate_listener_failed_handshakes_total{{listener=\"{}\"}}", setup.tls);
    eventually("they are counted", async || setup.gateway.metric(&name).await == 50.0).await;
}

#[tokio::test]
async fn nonsense_instead_of_a_handshake_ends_the_connection() {
    let (setup, ..) = Setup::simple("").await;
    let mut stream = TcpStream::connect(setup.tls).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // An alert (RFC 8446, 6), never an answer in the open.
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    assert_eq!(setup.status(&Dial::new(&["http/1.1"])).await, Ok(200));
}

#[tokio::test]
async fn connections_have_a_limit_for_each_client_and_for_all() {
    for (limit, key) in [("connections = 3", "limits.connections"), ("connections_per_client = 3", "_per_client")] {
        let origin = Origin::start().await;
        let gateway = Gateway::of(&[&origin], &format!("workers = 2\n[limits]\n{limit}"));
        let open = format!("moongate_listener_connections{{listener=\"{}\"}}", gateway.http);
        let mut kept = Vec::new();
        for _ in 0..3 {
            let mut client = Client::to(gateway.http).await;
            assert_eq!(client.get("/s/").await.status, 200);
            kept.push(client);
        }
        assert_eq!(gateway.metric(&open).await, 3.0);
        let refused = || {
            let mut stream = std::net::TcpStream::connect(gateway.http)?;
            stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
            stream.read(&mut [0])
        };
        for _ in 0..20 {
            let outcome: io::Result<usize> = refused();
            // Never an answer, and never a wait.
            let end = matches!(&outcome, Ok(0))
                || outcome.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::ConnectionReset);
            assert!(end, "{outcome:?}");
        }
        let name = format!("moongate_listener_refused_total{{listener=\"{}\"}}", gateway.http);
        assert_eq!(gateway.metric(&name).await, 20.0);
        logged(&gateway, key).await;
        let told = gateway.log().lines().filter(|line| line.contains("connections refused")).count();
        assert!((1..=3).contains(&told), "{told} lines for 20 connections");
        for client in &mut kept {
            assert_eq!(client.get("/s/").await.status, 200, "those before are served");
        }
        kept.clear();
        eventually("places are free again", async || gateway.metric(&open).await == 0.0).await;
        assert_eq!(get(gateway.http, "/s/").await.status, 200);
    }
}

#[tokio::test]
async fn limits_on_connections_follow_the_configuration() {
    let origin = Origin::start().await;
    let gateway = Gateway::of(&[&origin], "[limits]\nconnections = 1\n");
    let mut kept = Client::to(gateway.http).await;
    assert_eq!(kept.get("/s/").await.status, 200);
    let admitted = async || {
        // It may be refused so soon that it is refused while it connects.
        let Ok(stream) = TcpStream::connect(gateway.http).await else { return false };
        Client::over(stream).await.send(request("/s/", &[])).await.is_ok()
    };
    assert!(!admitted().await);
    let text = fs::read_to_string(gateway.path("moongate.toml")).unwrap();
    replace(&gateway.path("moongate.toml"), &text.replace("connections = 1", "connections = 2"));
    eventually("there is another place", async || admitted().await).await;
    assert_eq!(kept.get("/s/").await.status, 200);
}

#[test]
fn a_file_with_listeners_only_opens_nothing_else() {
    let parse = |text: &str| file::parse(text, Path::new("moongate.toml")).unwrap();
    let addresses = |text: &str| parse(text).all_listeners().iter().map(|it| it.address.port()).collect::<Vec<_>>();
    let listeners = "[[listeners]]\naddress = \"127.0.0.1:1\"\n";
    assert_eq!(addresses(""), [8080]);
    assert_eq!(addresses(listeners), [1]);
    assert_eq!(addresses(&format!("listen = \"127.0.0.1:2\"\n{listeners}")), [2, 1]);
}
