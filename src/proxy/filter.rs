//! Where requests and responses are rewritten: the route's filters, on the way in and in reverse on the way out.

use std::net::IpAddr;

use http::Method;

use super::body::Body;
use super::{Response, Worker, reply};
use crate::config::FilterFailure;
use crate::error::RequestError;
use crate::message::{RequestHead, ResponseHead};
use crate::plugin::host::{RequestInHand, ResponseInHand};
use crate::plugin::instance::Verdict;
use crate::plugin::{Binding, Failure, Kind};
use crate::routes::Route;
use crate::snapshot::Snapshot;

/// Shows the request to the route's filters; an answer if one of them has it.
///
/// # Errors
/// If a filter failed and its `on_failure` says `reject`.
pub fn request(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    head: &mut RequestHead,
    original: &str,
    client: IpAddr,
) -> Result<Option<Response>, RequestError> {
    let lent = std::mem::replace(head, RequestHead::new(Method::GET, "/"));
    let mut in_hand = Box::new(RequestInHand { head: lent, original: original.to_owned(), client });
    for filter in &route.filters {
        let binding = &filter.binding;
        let verdict;
        (in_hand, verdict) = match snapshot.plugins.get(binding.slot) {
            Some(plugin) if plugin.described.kinds.request_filter => {
                worker.plugins.borrow_mut().on_request(plugin, binding, in_hand)
            }
            Some(plugin) if plugin.described.kinds.serve(Kind::Filter) => continue,
            // Not there, or something else by now: what it guarded stays closed.
            _ => (in_hand, Err(Failure::Missing)),
        };
        match verdict {
            Ok(Verdict::Next) => {}
            Ok(Verdict::Respond(head, body)) => return Ok(Some(reply::by_filter(head, body))),
            Err(failure) => {
                if let Err(error) = failed(worker, binding, filter.on_failure, failure) {
                    // How the client is told depends on what it asked for.
                    *head = in_hand.head;
                    return Err(error);
                }
            }
        }
    }
    *head = in_hand.head;
    Ok(None)
}

/// The request as it is sent on, if a filter will ask for it when the response comes.
pub fn remember(
    snapshot: &Snapshot,
    route: &Route,
    head: &RequestHead,
    original: String,
    client: IpAddr,
) -> Option<RequestInHand> {
    let asks = |binding: &Binding| {
        let kinds = snapshot.plugins.get(binding.slot).map(|plugin| plugin.described.kinds);
        kinds.is_none_or(|kinds| kinds.response_filter || !kinds.serve(Kind::Filter))
    };
    let asked = route.filters.iter().any(|filter| asks(&filter.binding));
    asked.then(|| RequestInHand { head: head.clone(), original, client })
}

/// Shows the response to the route's filters, in reverse. `asked`: what [`remember`] gave.
///
/// # Errors
/// As for [`request`].
pub fn response(
    worker: &Worker,
    snapshot: &Snapshot,
    route: &Route,
    asked: Option<RequestInHand>,
    head: ResponseHead,
    body: Body,
) -> Result<Response, RequestError> {
    let Some(request) = asked else { return Ok(Response::own(head, body)) };
    let mut in_hand = Box::new(ResponseInHand { request, head });
    for filter in route.filters.iter().rev() {
        let binding = &filter.binding;
        let verdict;
        (in_hand, verdict) = match snapshot.plugins.get(binding.slot) {
            Some(plugin) if plugin.described.kinds.response_filter => {
                worker.plugins.borrow_mut().on_response(plugin, binding, in_hand)
            }
            Some(plugin) if plugin.described.kinds.serve(Kind::Filter) => continue,
            // Not there, or something else by now: what it guarded stays closed.
            _ => (in_hand, Err(Failure::Missing)),
        };
        match verdict {
            Ok(Verdict::Next) => {}
            Ok(Verdict::Respond(head, body)) => return Ok(reply::by_filter(head, body)),
            Err(failure) => failed(worker, binding, filter.on_failure, failure)?,
        }
    }
    Ok(Response::own(in_hand.head, body))
}

fn failed(worker: &Worker, binding: &Binding, on_failure: FilterFailure, failure: Failure) -> Result<(), RequestError> {
    worker.complain(&binding.plugin, &failure);
    match on_failure {
        FilterFailure::Skip => Ok(()),
        FilterFailure::Reject => Err(RequestError::Plugin { name: binding.plugin.clone(), failure }),
    }
}
