//! What a balancer would pick, without anything being picked: a throw-away instance with a throw-away copy of the use's
//! state, so that nothing moves. Not for a worker's thread: the instance is made for it.

use std::net::IpAddr;
use std::sync::Arc;

use super::instance::Turn;
use super::{Binding, Engine, Failure, Instances, Numbers, Plugin};
use crate::endpoint::Endpoints;
use crate::message::RequestHead;

/// How often it is asked: one that draws lots is not to be taken at its first word.
const TIMES: usize = 8;

/// What came of it.
#[derive(Debug)]
pub struct Rehearsed {
    /// What it picked each time; none where it had no opinion. The first is what the next request would get.
    pub picks: Vec<Option<u32>>,
    /// The parts of the request that it has declared, and their hashes; none where the request has no such part.
    pub keys: Vec<(String, Option<u64>)>,
}

/// Lets a balancer pick, as if after so many picks.
///
/// What plugins remember by name (`store`) is empty for it; numbers that they share are copies.
///
/// # Errors
/// As for [`Instances::pick`].
pub fn rehearse(
    engine: &Engine,
    plugin: &Arc<Plugin>,
    binding: &Binding,
    endpoints: &Arc<Endpoints>,
    head: &mut RequestHead,
    client: IpAddr,
) -> Result<Rehearsed, Failure> {
    let sequence = binding.counted();
    let binding = Arc::new(binding.copy(Numbers::default().take()));
    let mut instances = Instances::new(engine.clone(), None);
    let mut picks = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let turn = Turn { sequence, attempt: 0, tried: &[], client };
        picks.push(instances.pick(plugin, &binding, endpoints, head, turn)?);
    }
    Ok(Rehearsed { picks, keys: instances.declared(binding.slot, head, client) })
}
