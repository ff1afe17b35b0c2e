//! How many requests are in flight in the whole gateway, and which place one of them has.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many requests all workers are at.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Places(AtomicU32);

/// The places of all workers, with a count of this thread's own.
#[derive(Debug)]
pub(super) struct AllPlaces(Arc<Places>);

impl AllPlaces {
    pub(super) fn new(places: Arc<Places>) -> AllPlaces {
        AllPlaces(places)
    }
}

/// One of [`Places`], until it is dropped.
#[derive(Debug)]
pub struct Place(Rc<AllPlaces>);

impl Place {
    /// A place, if fewer than so many are taken.
    pub(super) fn enter(places: &Rc<AllPlaces>, limit: u32) -> Option<Place> {
        let place = Place(places.clone());
        (places.0.0.fetch_add(1, Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Relaxed);
    }
}
