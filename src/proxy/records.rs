//! What is written down of a request as it goes, as far as anybody wants it: a line for the access log, spans for a trace, what
//! it is counted under, and how it was decided.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Worker;
use super::access::Note;
use super::headers::{Client, RequestId};
use super::metrics::Placed;
use super::pick::Tried;
use super::told::Seen;
use super::trace::Trace;
use crate::endpoint::Endpoint;
use crate::error::RequestError;
use crate::message::{RequestHead, ResponseHead};
use crate::routes::Route;
use crate::snapshot::{Rules, Service, Snapshot};

/// Each of them, if it is wanted. They are complete when this is dropped.
#[derive(Default)]
pub struct Records {
    note: Option<Box<Note>>,
    trace: Option<Box<Trace>>,
    seen: Seen,
}

impl Records {
    /// Of a request that has come. Its head then says where in which trace it is, if there are traces at all.
    pub fn begin(
        worker: &Worker,
        rules: &Rules,
        head: &mut RequestHead,
        (client, id): (&Client, &RequestId),
        began: Instant,
    ) -> Records {
        let mut note = worker.journal.as_ref().map(|journal| Note::new(journal, head, id.bytes(), began));
        let trace = worker
            .recorder
            .as_ref()
            .and_then(|recorder| Trace::begin(recorder, head, client, id.text(), began, &mut worker.rng.borrow_mut()));
        if let (Some(note), Some(trace)) = (&mut note, &trace) {
            note.traced(&trace.id());
        }
        Records { note, trace, seen: Seen::of(rules, head) }
    }

    /// Who asks, over whose connection, and which route takes it to which service, if there is such a service.
    pub fn placed(&mut self, client: IpAddr, connection: &Client, route: &Route, service: Option<&Arc<Service>>) {
        self.note.iter_mut().for_each(|it| it.placed(client, &connection.peer, &route.name, &route.service));
        self.trace.iter_mut().for_each(|it| it.placed(client, route));
        self.seen.placed(route, service);
    }

    /// An endpoint that it is sent to, which is told of the trace, and whose word that was.
    pub fn tries(
        &mut self,
        head: &mut RequestHead,
        snapshot: &Snapshot,
        (route, service): (&Route, &Service),
        tried: &Tried,
        endpoint: &Endpoint,
    ) {
        if let Some(note) = &mut self.note {
            note.picked(tried.decided(route, snapshot), service.endpoints.len(), tried.sequence());
            note.tries(endpoint.spec.address);
        }
        self.trace.iter_mut().for_each(|it| it.tries(head, endpoint));
        self.seen.picked(snapshot, (route, service), tried, endpoint);
    }

    /// What became of that.
    pub fn tried(&mut self, outcome: Result<StatusCode, &RequestError>) {
        self.trace.iter_mut().for_each(|it| it.tried(outcome.map_err(RequestError::kind)));
    }

    /// What went wrong.
    pub fn failed(&mut self, error: &RequestError) {
        self.note.iter_mut().for_each(|it| it.failed(error.kind()));
        self.trace.iter_mut().for_each(|it| it.failed(error.kind()));
    }

    /// What it is counted under, if a route took it.
    pub fn counted(&self) -> Option<Placed> {
        self.seen.placed
    }

    /// How it was answered. The head is told how it was decided, if the request asked for that.
    pub fn answered(&mut self, rules: &Rules, head: &mut ResponseHead) {
        self.seen.tell(rules, head);
        self.note.iter_mut().for_each(|it| it.answered(head.status));
        self.trace.iter_mut().for_each(|it| it.answered(head.status));
    }

    /// So many bytes of the body were sent; `whole`: these were all.
    pub fn sent(&mut self, bytes: u64, whole: bool) {
        self.note.iter_mut().for_each(|it| it.sent(bytes, whole));
    }
}
