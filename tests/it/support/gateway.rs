//! The real binary, with a directory of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::client::get;
use super::origin::Origin;

/// A running gateway; it ends when this is dropped.
pub(crate) struct Gateway {
    pub(crate) http: SocketAddr,
    /// All of its listeners; the first is [`Self::http`].
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    /// From the start of the process until it took requests.
    pub(crate) started_in: Duration,
    dir: Arc<TempDir>,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// With this configuration, to which addresses are added.
    pub(crate) fn start(config: &str) -> Gateway {
        Gateway::start_in(TempDir::new().unwrap(), config)
    }

    /// The same in a directory with files in it.
    pub(crate) fn start_in(dir: TempDir, config: &str) -> Gateway {
        let file = dir.path().join("moongate.toml");
        fs::write(&file, format!("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{config}")).unwrap();
        Gateway::spawn(dir, &["run", "--config", file.to_str().unwrap()])
    }

    /// With these endpoints of the service `s` in a services file, and automatic routes.
    pub(crate) fn of(origins: &[&Origin], config: &str) -> Gateway {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("services.toml"), services("s", origins)).unwrap();
        Gateway::start_in(dir, &format!("{config}\n[registry.file]\npath = \"services.toml\"\n[auto_routes]\n"))
    }

    /// Another one in the same directory, with the same configuration and these arguments more.
    pub(crate) fn beside(&self, arguments: &[&str]) -> Gateway {
        let file = self.path("moongate.toml");
        Gateway::spawn(self.dir.clone(), &[&["run", "--config", file.to_str().unwrap()], arguments].concat())
    }

    /// With these arguments, in `dir`.
    pub(crate) fn spawn(dir: impl Into<Arc<TempDir>>, arguments: &[&str]) -> Gateway {
        let dir = dir.into();
        fs::create_dir_all(dir.path().join("plugins")).unwrap();
        let began = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moongate"));
        command.args(arguments).current_dir(dir.path()).env_remove("MOONGATE_LOG");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let ready = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the gateway ended before it was ready:\n{}", log.lock().unwrap());
            };
            if let Some(addresses) = line.strip_prefix("ready: ") {
                break addresses.to_owned();
            }
            push(&log, &line);
        };
        let started_in = began.elapsed();
        let written = log.clone();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| push(&written, &line)));
        let mut addresses: Vec<SocketAddr> =
            ready.split("://").skip(1).map(|it| it.split([' ', ';']).next().unwrap().parse().unwrap()).collect();
        let admin = addresses.pop().unwrap();
        Gateway { http: addresses[0], listeners: addresses, admin, started_in, dir, child, log }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a file into the plugin directory as an operator should: under another name first.
    pub(crate) fn plug(&self, name: &str, file: &Path) {
        self.plug_bytes(name, &fs::read(file).unwrap());
    }

    pub(crate) fn plug_bytes(&self, name: &str, bytes: &[u8]) {
        let new = self.path("plugins").join(format!(".{name}.new"));
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path("plugins").join(format!("{name}.wasm"))).unwrap();
    }

    pub(crate) fn unplug(&self, name: &str) {
        fs::remove_file(self.path("plugins").join(format!("{name}.wasm"))).unwrap();
    }

    /// Replaces the services file atomically.
    pub(crate) fn serve(&self, service: &str, origins: &[&Origin]) {
        let new = self.path("services.new");
        fs::write(&new, services(service, origins)).unwrap();
        fs::rename(new, self.path("services.toml")).unwrap();
    }

    /// A document of the admin API.
    pub(crate) async fn api(&self, what: &str) -> Value {
        let reply = get(self.admin, &format!("/api/v1/{what}")).await;
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// What the API says of a plugin.
    pub(crate) async fn plugin(&self, name: &str) -> Value {
        let all = self.api("plugins").await;
        all["plugins"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// The addresses of a service's endpoints; none if the service is not known.
    pub(crate) async fn endpoints(&self, service: &str) -> Option<Vec<String>> {
        let all = self.api("services").await;
        let service = all["services"].as_array().unwrap().iter().find(|it| it["name"] == service)?.clone();
        let endpoints = service["endpoints"].as_array().unwrap().iter();
        Some(endpoints.map(|it| it["address"].as_str().unwrap().to_owned()).collect())
    }

    /// A metric's value, by its whole name with labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let reply = get(self.admin, "/metrics").await;
        let line = reply.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Resident memory of the process, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        super::eventually("the gateway ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}

fn push(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().unwrap();
    log.push_str(line);
    log.push('\n');
}

/// The text of a services file.
pub(crate) fn services(service: &str, origins: &[&Origin]) -> String {
    let endpoints: Vec<String> = origins.iter().map(|it| format!("{{ address = \"{}\" }}", it.address)).collect();
    format!("[services.{service}]\nendpoints = [{}]\n", endpoints.join(", "))
}
