//! A real ZooKeeper server on a free loopback port, and a registrar that behaves as Registrator does.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use zookeeper_client::{Acls, Client, CreateMode, Error};

/// Where Debian's package puts it, with the logging that it links to and what it forgets of what TLS needs.
const JARS: [&str; 5] =
    ["zookeeper.jar", "slf4j-log4j12.jar", "log4j-1.2.jar", "netty-codec.jar", "netty-resolver.jar"];

/// How long a server may take to start. Half a second is usual, twelve were seen on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long a four-letter command may take; one in the start-up window can hang.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);

/// One server; ends and leaves nothing behind when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    process: Mutex<Option<Process>>,
    /// What the server's virtual machine is told besides.
    options: Vec<String>,
}

struct Process {
    shell: Child,
    /// The process id of the server itself.
    id: String,
}

impl Server {
    /// Returns as soon as it answers.
    ///
    /// # Panics
    /// ZooKeeper is not installed: `tests/setup` does that. A test is never skipped.
    pub(crate) fn start() -> Server {
        for jar in JARS {
            let jar = Path::new("/usr/share/java").join(jar);
            assert!(jar.exists(), "{} is missing: run tests/setup, which installs ZooKeeper", jar.display());
        }
        let server = Server::prepare(&[], "", &[]);
        server.restart();
        server
    }

    /// A server that does not run yet, with these files in its directory and these lines in its configuration; `{dir}`
    /// in them and in the options is that directory.
    pub(crate) fn prepare(files: &[(&str, &str)], config: &str, options: &[&str]) -> Server {
        let address = free_address();
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().display().to_string();
        let config = format!(
            "dataDir={data}/data\nclientPort={}\nclientPortAddress=127.0.0.1\ntickTime=500\nminSessionTimeout=1000\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n{}",
            address.port(),
            config.replace("{dir}", &data)
        );
        fs::write(directory.path().join("zoo.cfg"), config).unwrap();
        fs::write(directory.path().join("log4j.properties"), "log4j.rootLogger=OFF\n").unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let options = options.iter().map(|it| it.replace("{dir}", &data)).collect();
        Server { address, directory, process: Mutex::default(), options }
    }

    /// The server that most tests share, each with its own root.
    pub(crate) fn shared() -> &'static Server {
        // Never dropped; see `spawn` for how it ends.
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Server::start)
    }

    pub(crate) fn connect_string(&self) -> String {
        self.address.to_string()
    }

    /// Ends the server at once, as a power cut would. Its data stays.
    pub(crate) fn kill(&self) {
        if let Some(Process { mut shell, .. }) = self.process.lock().unwrap().take() {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Stops the process where it stands, or lets it go on: `-STOP`, `-CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let process = self.process.lock().unwrap();
        let id = &process.as_ref().expect("a server that runs").id;
        assert!(Command::new("kill").args([signal, id]).status().unwrap().success());
    }

    /// Takes all data away from a server that does not run, but for these files of it.
    pub(crate) fn forget(&self, but: &[&str]) {
        let data = self.directory.path().join("data");
        let kept: Vec<_> = but.iter().map(|name| (data.join(name), fs::read(data.join(name)).unwrap())).collect();
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir_all(&data).unwrap();
        kept.into_iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }

    /// [`Self::kill`], and start on the same port with the same data.
    pub(crate) fn restart(&self) {
        self.begin();
        self.wait();
    }

    /// [`Self::restart`] without waiting: a member of an ensemble does not answer before it has others.
    pub(crate) fn begin(&self) {
        self.kill();
        *self.process.lock().unwrap() = Some(self.spawn());
    }

    /// Waits until it answers.
    pub(crate) fn wait(&self) {
        let started = Instant::now();
        // `ruok` would say yes too early.
        while self.mode().is_none() {
            assert!(started.elapsed() < START_LIMIT, "ZooKeeper did not start in {START_LIMIT:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it is: `standalone`, `leader`, `follower`; `None` if it does not serve.
    pub(crate) fn mode(&self) -> Option<String> {
        let answer = self.four_letter("srvr")?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.map(ToOwned::to_owned)
    }

    fn spawn(&self) -> Process {
        let directory = self.directory.path();
        let jars = JARS.map(|jar| format!("/usr/share/java/{jar}")).join(":");
        // The shell kills the server when its standard input closes. That it does on `kill`, and also however this
        // process ends, so that no server outlives a test run.
        let script = r#""$@" >/dev/null & echo $!; read -r _; kill -9 $!; wait $!"#;
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh", "java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-XX:-UsePerfData", "-Dzookeeper.forceSync=no", "-Dzookeeper.preAllocSize=1024", "-cp"])
            .arg(format!("{}:{jars}", directory.display()))
            .args(&self.options)
            // One without others in its configuration stands alone.
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(directory.join("zoo.cfg"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut id = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut id).unwrap();
        Process { shell, id: id.trim().to_owned() }
    }

    /// What the server answers to `srvr`, `wchs`, `cons`, …; `None` if it does not in time.
    pub(crate) fn four_letter(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, COMMAND_LIMIT).ok()?;
        stream.set_read_timeout(Some(COMMAND_LIMIT)).ok()?;
        stream.write_all(command.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address for a server that has to be told its port. Below those that the kernel gives to connections (32768 and above),
/// so that a server that was down for a while finds its port free when it comes back.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes of tests that run side by side begin at different places.
        let place = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + (place % 20_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// What gliderlabs/registrator does to ZooKeeper, call by call.
pub(crate) struct Registrar {
    client: Client,
    root: String,
}

impl Registrar {
    /// Creates the root if it is missing, as Registrator does when it starts.
    pub(crate) async fn start(server: &Server, root: &str) -> Registrar {
        Registrar::through(connect(server).await, root).await
    }

    /// The same with this client.
    pub(crate) async fn through(client: Client, root: &str) -> Registrar {
        ignore(client.create(root, b"", &PERSISTENT.with_acls(Acls::anyone_all())).await, Error::NodeExists);
        Registrar { client, root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// For what Registrator does not do.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The body without tags and attributes.
    pub(crate) async fn register(&self, service: &str, address: &str) {
        self.register_with(service, address, "null", "null").await;
    }

    /// `tags` and `attrs` are JSON. Panics if ZooKeeper does not answer.
    pub(crate) async fn register_with(&self, service: &str, address: &str, tags: &str, attrs: &str) {
        self.try_register(service, address, tags, attrs).await.unwrap();
    }

    /// An address that is registered stays as it is: Registrator's refresh only creates.
    pub(crate) async fn try_register(
        &self,
        service: &str,
        address: &str,
        tags: &str,
        attrs: &str,
    ) -> Result<(), Error> {
        let parent = format!("{}/{service}", self.root);
        let (ip, port) = address.rsplit_once(':').expect("an address");
        let body = format!(
            r#"{{"Name":"{service}","IP":"{ip}","PublicPort":{port},"PrivatePort":80,"ContainerID":"c0ffee","Tags":{tags},"Attrs":{attrs}}}"#
        );
        for attempt in 0.. {
            allow(
                self.client.create(&parent, b"", &PERSISTENT.with_acls(Acls::anyone_all())).await,
                Error::NodeExists,
            )?;
            let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
            match self.client.create(&format!("{parent}/{address}"), body.as_bytes(), &options).await {
                Ok(_) | Err(Error::NodeExists) => break,
                // Another registrar took the service's last node meanwhile.
                Err(Error::NoNode) if attempt < 100 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Panics if ZooKeeper does not answer.
    pub(crate) async fn deregister(&self, service: &str, address: &str) {
        self.try_deregister(service, address).await.unwrap();
    }

    /// Takes the service's znode away with its last child.
    pub(crate) async fn try_deregister(&self, service: &str, address: &str) -> Result<(), Error> {
        let parent = format!("{}/{service}", self.root);
        allow(self.client.delete(&format!("{parent}/{address}"), None).await, Error::NoNode)?;
        match self.client.list_children(&parent).await {
            Ok(children) if children.is_empty() => match self.client.delete(&parent, None).await {
                Err(Error::NotEmpty) => Ok(()),
                other => allow(other, Error::NoNode),
            },
            other => allow(other, Error::NoNode),
        }
    }
}

const PERSISTENT: CreateMode = CreateMode::Persistent;

/// A client of its own, straight to the server.
pub(crate) async fn connect(server: &Server) -> Client {
    let connector = Client::connector().with_session_timeout(Duration::from_secs(10));
    connector.connect(&server.connect_string()).await.unwrap()
}

fn allow<T>(result: Result<T, Error>, allowed: Error) -> Result<(), Error> {
    match result {
        Err(error) if error != allowed => Err(error),
        _ => Ok(()),
    }
}

/// Panics with an error that is not this one.
pub(crate) fn ignore<T>(result: Result<T, Error>, allowed: Error) {
    allow(result, allowed).unwrap();
}
