//! A request that is followed: what is noted of it on its way, and what endpoints are told in `traceparent`. Where spans go
//! from here is in [`crate::trace`].

use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;

use super::headers::Client;
use crate::endpoint::Endpoint;
use crate::message::{Known, RequestHead};
use crate::routes::Route;
use crate::timer;
use crate::trace::{Attempt, Context, Exchange, Recorder, SpanId, TraceId};

/// Bytes of `tracestate` that spans keep; the W3C asks for at least so many to be passed on.
const STATE: usize = 512;

/// A request that is followed. It goes to the recorder when this is dropped, which is when the last of the response is with
/// the system, or nobody waits for it any more.
pub struct Trace {
    recorder: Rc<Recorder>,
    context: Context,
    rng: fastrand::Rng,
    exchange: Option<Box<Exchange>>,
}

impl Trace {
    /// Decides whether a request is followed; none: it is not. Either way the head says afterwards where in which trace it
    /// is: a good `traceparent` is believed, anything else replaced.
    pub fn begin(
        recorder: &Rc<Recorder>,
        head: &mut RequestHead,
        client: &Client,
        id: &str,
        began: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Box<Trace>> {
        let caller = caller(head);
        let trace = caller.map_or_else(|| TraceId::random(rng), |it| it.trace);
        let follows = recorder.shared().follows(caller.as_ref(), trace);
        let own = SpanId::random(rng);
        let context = match &caller {
            // We have no span for it: what the caller said stays true.
            Some(_) if !follows => return None,
            Some(caller) => caller.child(own),
            None => Context::new(trace, own, follows),
        };
        head.fields.set(Known::TraceParent, &context.write());
        if caller.is_none() {
            // It belongs to a trace that nobody can tell.
            head.fields.remove(Known::TraceState);
        }
        if !follows {
            return None;
        }
        let text = |name: Known| -> Option<Box<str>> { head.fields.text(name).map(Box::from) };
        let exchange = Exchange {
            trace,
            span: own,
            parent: caller.map(|it| it.span),
            state: text(Known::TraceState).filter(|it| it.len() <= STATE),
            began,
            ended: began,
            method: head.method.clone(),
            path: head.target.path().into(),
            host: text(Known::Host),
            secure: client.secure,
            version: head.version.name(),
            client: client.peer.address(),
            agent: text(Known::UserAgent),
            id: id.into(),
            route: None,
            status: None,
            error: None,
            attempts: Vec::new(),
        };
        let (recorder, rng, exchange) = (recorder.clone(), rng.fork(), Some(Box::new(exchange)));
        Some(Box::new(Trace { recorder, context, rng, exchange }))
    }

    /// The trace, as it is written.
    pub fn id(&self) -> [u8; 32] {
        let mut id = [0; 32];
        crate::trace::context::hex(&self.context.trace.0, &mut id);
        id
    }

    /// Who asks, and which route takes it.
    pub fn placed(&mut self, client: std::net::IpAddr, route: &Route) {
        if let Some(exchange) = &mut self.exchange {
            exchange.client = client;
            exchange.route = Some((route.name.clone(), route.service.clone()));
        }
    }

    /// An endpoint that it is sent to, which is told.
    pub fn tries(&mut self, head: &mut RequestHead, endpoint: &Endpoint) {
        let span = SpanId::random(&mut self.rng);
        head.fields.set(Known::TraceParent, &self.context.child(span).write());
        let (scheme, endpoint) = (endpoint.spec.scheme, endpoint.spec.address);
        let attempt = Attempt {
            span,
            endpoint,
            scheme: if scheme.is_secure() { "https" } else { "http" },
            path: head.target.path().into(),
            began: timer::now(),
            ended: None,
            status: None,
            error: None,
        };
        if let Some(exchange) = &mut self.exchange {
            exchange.attempts.push(attempt);
        }
    }

    /// What became of the latest attempt: a status, or what the metrics call it.
    pub fn tried(&mut self, outcome: Result<StatusCode, &'static str>) {
        if let Some(attempt) = self.exchange.as_mut().and_then(|it| it.attempts.last_mut()) {
            attempt.ended = Some(timer::now());
            (attempt.status, attempt.error) = (outcome.ok(), outcome.err());
        }
    }

    /// What went wrong, as the metrics name it.
    pub fn failed(&mut self, error: &'static str) {
        self.exchange.iter_mut().for_each(|it| it.error = Some(error));
    }

    /// How it was answered.
    pub fn answered(&mut self, status: StatusCode) {
        self.exchange.iter_mut().for_each(|it| it.status = Some(status));
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.ended = timer::now();
            self.recorder.put(exchange);
        }
    }
}

/// Where the caller is, if it says so well, and once.
fn caller(head: &RequestHead) -> Option<Context> {
    let mut all = head.fields.all(Known::TraceParent);
    let context = Context::read(all.next()?)?;
    all.next().is_none().then_some(context)
}
