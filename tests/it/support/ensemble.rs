//! Three real ZooKeeper servers that elect a leader among them.

use std::fmt::Write;
use std::time::{Duration, Instant};

use zookeeper_client::Client;

use super::zookeeper::{Server, free_address};

/// How long an election may take; a second is usual.
const ELECTION_LIMIT: Duration = Duration::from_secs(60);

/// They end when this is dropped.
pub(crate) struct Ensemble {
    pub(crate) servers: Vec<Server>,
}

impl Ensemble {
    /// Returns when a leader is elected and all three serve.
    pub(crate) fn start() -> Ensemble {
        Ensemble::with("", &[])
    }

    /// The same with these lines in the configurations, and these options.
    pub(crate) fn with(config: &str, options: &[&str]) -> Ensemble {
        // With a shorter limit a busy machine would end elections.
        let mut config = format!("initLimit=20\nsyncLimit=4\n{config}");
        for number in 1..=3 {
            let (quorum, election) = (free_address().port(), free_address().port());
            writeln!(config, "server.{number}=127.0.0.1:{quorum}:{election}").unwrap();
        }
        let server = |number: u32| Server::prepare(&[("data/myid", &number.to_string())], &config, options);
        let ensemble = Ensemble { servers: (1..=3).map(server).collect() };
        ensemble.servers.iter().for_each(Server::begin);
        ensemble.servers.iter().for_each(Server::wait);
        ensemble
    }

    /// What a client is given.
    pub(crate) fn connect_string(&self) -> String {
        let all: Vec<String> = self.servers.iter().map(Server::connect_string).collect();
        all.join(",")
    }

    /// The index of the leader; waits for one.
    pub(crate) fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            if let Some(at) = self.servers.iter().position(|it| it.mode().as_deref() == Some("leader")) {
                return at;
            }
            assert!(began.elapsed() < ELECTION_LIMIT, "no leader in {ELECTION_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All at once, and without what they knew.
    pub(crate) fn restart_empty(&self) {
        self.servers.iter().for_each(Server::kill);
        self.servers.iter().for_each(|it| it.forget(&["myid"]));
        self.servers.iter().for_each(Server::begin);
        self.servers.iter().for_each(Server::wait);
    }

    /// A client of its own, straight to the servers; waits for one.
    pub(crate) async fn connect(&self, session_timeout: Duration) -> Client {
        let began = Instant::now();
        loop {
            let connector = Client::connector().with_session_timeout(session_timeout).with_fail_eagerly();
            match connector.connect(&self.connect_string()).await {
                Ok(client) => return client,
                Err(error) => assert!(began.elapsed() < ELECTION_LIMIT, "connecting: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
