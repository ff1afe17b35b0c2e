//! A plugin as a worker has it, without a gateway around it: endpoints, requests and calls are made up.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use crate::config::upstream::Settings;
use crate::endpoint::Endpoints;
use crate::message::RequestHead;
use crate::plugin::host::{Exchange, Show, Step};
use crate::plugin::instance::{Turn, Verdict};
use crate::plugin::{Binding, Engine, Failure, Instances, Kind, Kinds, Numbers, Plugin};
use crate::registry;

/// Whoever asks, where it does not matter.
pub(super) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What a filter wants, and how it wants to see the body.
pub(super) type Stepped = Result<(Verdict, Option<Show>), Failure>;

/// A worker's place for one plugin; the instance is made at the first call.
pub(super) struct Rig {
    plugin: Arc<Plugin>,
    instances: Instances,
    numbers: Numbers,
    /// The time of calls, if somebody wants to know it.
    pace: Option<Rc<RefCell<Pace>>>,
    /// Bindings and lists that the instance knows: a call that tells it of others is several calls.
    known: HashSet<(usize, u64)>,
}

/// How long calls took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// The longest that a gateway would wait.
    pub(super) limit: Duration,
    /// How many there were.
    pub(super) calls: u64,
    /// How many of them took longer than the limit.
    pub(super) late: u64,
    /// The longest.
    pub(super) slowest: Duration,
}

impl Pace {
    /// Counts a call.
    pub(super) fn took(&mut self, time: Duration) {
        self.calls += 1;
        self.late += u64::from(time > self.limit);
        self.slowest = self.slowest.max(time);
    }
}

impl Rig {
    /// For this plugin, which is not yet started.
    pub(super) fn new(engine: &Engine, plugin: &Arc<Plugin>, pace: Option<Rc<RefCell<Pace>>>) -> Rig {
        let instances = Instances::new(engine.clone(), None);
        Rig { plugin: plugin.clone(), instances, numbers: Numbers::default(), pace, known: HashSet::new() }
    }

    /// What the plugin is.
    pub(super) fn kinds(&self) -> Kinds {
        self.plugin.described.kinds
    }

    /// A use of it. It has the lowest number that no other use has.
    pub(super) fn bind(&self, kind: Kind, config: &Arc<str>) -> Arc<Binding> {
        Arc::new(Binding::new(0, self.plugin.name.clone(), kind, config.clone(), self.numbers.take()))
    }

    /// Starts an instance and throws it away.
    pub(super) fn start(&self) -> Result<(), Failure> {
        self.instances.start(&self.plugin)
    }

    /// Configures it; a balancer also gets the endpoints and picks once.
    pub(super) fn configure(&mut self, binding: &Arc<Binding>, endpoints: &Arc<Endpoints>) -> Result<(), Failure> {
        self.instances.trial(&self.plugin, binding, endpoints)
    }

    /// Asks for an endpoint.
    pub(super) fn pick(
        &mut self,
        binding: &Arc<Binding>,
        endpoints: &Arc<Endpoints>,
        head: &mut RequestHead,
        turn: Turn<'_>,
    ) -> Result<Option<u32>, Failure> {
        let began = self.begin(binding, endpoints.version);
        let outcome = self.instances.pick(&self.plugin, binding, endpoints, head, turn);
        self.end(began, outcome.is_err());
        outcome
    }

    /// Shows a filter one step of an exchange.
    pub(super) fn step(
        &mut self,
        binding: &Arc<Binding>,
        exchange: Box<Exchange>,
        step: Step<'_>,
    ) -> (Box<Exchange>, Stepped) {
        let began = self.begin(binding, 0);
        let (exchange, outcome) = self.instances.filter(&self.plugin, binding, exchange, step);
        self.end(began, outcome.is_err());
        (exchange, outcome)
    }

    /// Bytes of linear memory of the instance; zero while there is none.
    pub(super) fn memory(&self) -> u64 {
        self.instances.memory(0).unwrap_or(0)
    }

    /// When a call begins whose time is to be taken.
    fn begin(&mut self, binding: &Arc<Binding>, version: u64) -> Option<Instant> {
        self.pace.as_ref()?;
        let known = !self.known.insert((Arc::as_ptr(binding) as usize, version));
        known.then(Instant::now)
    }

    fn end(&mut self, began: Option<Instant>, failed: bool) {
        if let (Some(began), Some(pace)) = (began, &self.pace) {
            pace.borrow_mut().took(began.elapsed());
        }
        if failed {
            // The next instance knows nothing.
            self.known.clear();
        }
    }
}

/// Endpoints with these weights, from 10.0.0.1:80 on. At most 62,500.
pub(super) fn endpoints(weights: &[u16]) -> Arc<Endpoints> {
    let endpoint = |(at, weight): (usize, &u16)| registry::Endpoint {
        address: SocketAddr::from(([10, 0, (at / 250) as u8, (at % 250) as u8 + 1], 80)),
        scheme: registry::Scheme::Http,
        weight: *weight,
        zone: "".into(),
        labels: Vec::new(),
    };
    list(weights.iter().enumerate().map(endpoint).collect())
}

/// The list of these endpoints, which are ordered by address.
pub(super) fn list(endpoints: Vec<registry::Endpoint>) -> Arc<Endpoints> {
    // Whoever makes up requests in flight may have as many as it likes.
    let settings = Settings { max_requests: 0, ..Settings::default() };
    let service = registry::Service { endpoints, ..registry::Service::default() };
    Arc::new(Endpoints::new(&service, &Arc::new(settings), &Arc::default()))
}

/// The n-th of requests that differ in all that a balancer might look at.
pub(super) fn request(n: u64) -> (RequestHead, IpAddr) {
    let mut head = RequestHead::new(Method::GET, &format!("/item/{n}?user={n}"));
    head.fields.append("host", b"shop.example");
    head.fields.append("cookie", format!("session={n}; id={n}").as_bytes());
    head.fields.append("x-user", n.to_string().as_bytes());
    (head, IpAddr::V4(Ipv4Addr::from(0xc633_6400 + (n % 256) as u32)))
}

/// The first pick of a request.
pub(super) fn turn(binding: &Binding, client: IpAddr) -> Turn<'static> {
    Turn { sequence: binding.count(), attempt: 0, tried: &[], client }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_many_and_ordered() {
        let list = endpoints(&[1; 1000]);
        assert_eq!(list.len(), 1000);
        assert!(list.windows(2).all(|two| two[0].spec.address < two[1].spec.address));
        assert_eq!(list[999].spec.address.to_string(), "10.0.3.250:80");
    }

    #[test]
    fn requests_differ() {
        let (a, b) = (request(1), request(2));
        assert_ne!(a.0.target.as_str(), b.0.target.as_str());
        assert_ne!(a.0.fields.get("cookie"), b.0.fields.get("cookie"));
        assert_eq!(a.1.to_string(), "198.51.100.1");
    }

    #[test]
    fn a_pace_knows_what_was_late() {
        let mut pace = Pace { limit: Duration::from_millis(10), ..Pace::default() };
        [1, 30, 10].into_iter().for_each(|ms| pace.took(Duration::from_millis(ms)));
        assert_eq!((pace.calls, pace.late, pace.slowest), (3, 1, Duration::from_millis(30)));
    }
}
