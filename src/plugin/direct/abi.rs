//! The canonical ABI, by hand: values in a guest's memory, as the component model's specification has them.
//!
//! What a guest says of its memory is untrusted: every place is checked for its bounds and alignment, text for being UTF-8,
//! and what does not hold is an error, which traps the call.

use wasmtime::{AsContext, AsContextMut, Caller, Error, Memory, Result, TypedFunc};

use crate::plugin::host::Host;

/// A call of the host by a guest.
pub(super) type Call<'a> = Caller<'a, Host>;

/// The memory of a guest that is called directly, and how room is made in it.
///
/// It is taken out of the [`Host`] while the guest makes room or cleans up, when it must not call the host.
pub(crate) struct Linear {
    pub(super) memory: Memory,
    pub(super) realloc: TypedFunc<(u32, u32, u32, u32), u32>,
    /// For what is on its way into the memory.
    pub(super) scratch: Vec<u8>,
}

/// Bytes that `scratch` may keep.
const SCRATCH: usize = 64 << 10;

fn outside() -> Error {
    Error::msg("a pointer is out of bounds of the memory")
}

/// The guest's own word for calling the host out of turn.
pub(super) fn may_not_leave() -> Error {
    Error::msg("it called the host while it was making room, or cleaning up")
}

/// The bytes at this place.
pub(super) fn bytes(memory: &[u8], at: u32, length: u32) -> Result<&[u8]> {
    memory.get(at as usize..).and_then(|it| it.get(..length as usize)).ok_or_else(outside)
}

/// The text at this place.
pub(super) fn text(memory: &[u8], at: u32, length: u32) -> Result<&str> {
    std::str::from_utf8(bytes(memory, at, length)?).map_err(|error| Error::msg(format!("a string is no text: {error}")))
}

/// The record at this place, of so many bytes.
pub(super) fn record<const SIZE: usize>(memory: &[u8], at: u32, align: u32) -> Result<&[u8; SIZE]> {
    aligned(at, align)?;
    bytes(memory, at, SIZE as u32)?.first_chunk().ok_or_else(outside)
}

/// The records of a list at this place, each of so many bytes.
pub(super) fn records<const SIZE: usize>(memory: &[u8], (at, count): (u32, u32), align: u32) -> Result<&[[u8; SIZE]]> {
    aligned(at, align)?;
    let length = count.checked_mul(SIZE as u32).ok_or_else(outside)?;
    Ok(bytes(memory, at, length)?.as_chunks().0)
}

fn aligned(at: u32, align: u32) -> Result<()> {
    if at.is_multiple_of(align) { Ok(()) } else { Err(Error::msg("a pointer is not aligned")) }
}

/// The number in a record at this offset.
pub(super) fn number(record: &[u8], offset: usize) -> u32 {
    let bytes = record.get(offset..).and_then(|it| it.first_chunk());
    u32::from_le_bytes(*bytes.unwrap_or_else(|| unreachable!("records have all of their fields")))
}

/// Where a list or a string is, and how long, in a record at this offset.
pub(super) fn list(record: &[u8], offset: usize) -> (u32, u32) {
    (number(record, offset), number(record, offset + 4))
}

/// Writes a record to a place that the guest has named.
pub(super) fn put(memory: &mut [u8], at: u32, align: u32, record: &[u8]) -> Result<()> {
    aligned(at, align)?;
    let place = memory.get_mut(at as usize..).and_then(|it| it.get_mut(..record.len())).ok_or_else(outside)?;
    place.copy_from_slice(record);
    Ok(())
}

impl Linear {
    /// Room for so many bytes.
    pub(super) fn room(&self, store: &mut impl AsContextMut<Data = Host>, align: u32, size: usize) -> Result<u32> {
        let length = u32::try_from(size).map_err(|_| outside())?;
        let at = self.realloc.call(&mut *store, (0, 0, align, length))?;
        aligned(at, align)?;
        let end = (at as usize).checked_add(size).ok_or_else(outside)?;
        if end > self.memory.data_size(store.as_context()) {
            return Err(outside());
        }
        Ok(at)
    }

    /// Copies bytes into new room.
    pub(super) fn lower(&self, store: &mut impl AsContextMut<Data = Host>, bytes: &[u8]) -> Result<u32> {
        let at = self.room(store, 1, bytes.len())?;
        put(self.memory.data_mut(store.as_context_mut()), at, 1, bytes)?;
        Ok(at)
    }
}

/// Takes the guest's memory, so that it cannot call the host meanwhile.
///
/// # Errors
/// If it is taken.
pub(super) fn take(host: &mut Host) -> Result<Box<Linear>> {
    host.linear.take().ok_or_else(may_not_leave)
}

/// The host, for a function of numbers only.
pub(super) fn host<'a>(call: &'a mut Call<'_>) -> Result<&'a mut Host> {
    let host = call.data_mut();
    if host.linear.is_some() { Ok(host) } else { Err(may_not_leave()) }
}

/// The host, and the guest's memory.
pub(super) fn lent<'a>(call: &'a mut Call<'_>) -> Result<(&'a mut [u8], &'a mut Host)> {
    let memory = call.data().linear.as_ref().ok_or_else(may_not_leave)?.memory;
    Ok(memory.data_and_store_mut(call))
}

/// Puts bytes into new room, and where they are to a place `to` that the guest has named. `write` says them; false: there
/// are none, for which there must be an `option`.
pub(super) fn give(
    call: &mut Call<'_>,
    to: u32,
    option: bool,
    write: impl FnOnce(&[u8], &mut Host, &mut Vec<u8>) -> Result<bool>,
) -> Result<()> {
    let mut linear = take(call.data_mut())?;
    linear.scratch.clear();
    let (memory, host) = linear.memory.data_and_store_mut(&mut *call);
    let there = write(memory, host, &mut linear.scratch)?;
    // Its places are `option` or not: a word, and then pointer and length.
    let mut record = [0; 12];
    if there {
        let at = linear.lower(call, &linear.scratch)?;
        record[0] = 1;
        record[4..8].copy_from_slice(&at.to_le_bytes());
        record[8..].copy_from_slice(&(linear.scratch.len() as u32).to_le_bytes());
    }
    let memory = linear.memory.data_mut(&mut *call);
    put(memory, to, 4, if option { &record } else { &record[4..] })?;
    linear.scratch.shrink_to(SCRATCH);
    call.data_mut().linear = Some(linear);
    Ok(())
}

/// Puts a list of pairs of texts into new room, and where it is to a place that the guest has named.
pub(super) fn give_pairs(call: &mut Call<'_>, to: u32, pairs: &[(String, String)]) -> Result<()> {
    let linear = take(call.data_mut())?;
    let at = lower_pairs(&linear, call, pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    give_list(call, linear, to, (at, pairs.len()))
}

/// Puts a list of numbers there, likewise.
pub(super) fn give_numbers(call: &mut Call<'_>, to: u32) -> Result<()> {
    let mut linear = take(call.data_mut())?;
    let mut numbers = std::mem::take(&mut linear.scratch);
    numbers.clear();
    call.data().inflight_all().for_each(|number| numbers.extend_from_slice(&number.to_le_bytes()));
    let at = linear.room(call, 4, numbers.len())?;
    put(linear.memory.data_mut(&mut *call), at, 4, &numbers)?;
    let count = numbers.len() / 4;
    linear.scratch = numbers;
    give_list(call, linear, to, (at, count))
}

fn give_list(call: &mut Call<'_>, linear: Box<Linear>, to: u32, (at, count): (u32, usize)) -> Result<()> {
    let mut record = [0; 8];
    record[..4].copy_from_slice(&at.to_le_bytes());
    record[4..].copy_from_slice(&(count as u32).to_le_bytes());
    put(linear.memory.data_mut(&mut *call), to, 4, &record)?;
    call.data_mut().linear = Some(linear);
    Ok(())
}

/// Puts pairs of texts into new room; where the list of them is.
pub(super) fn lower_pairs<'a>(
    linear: &Linear,
    store: &mut impl AsContextMut<Data = Host>,
    pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
) -> Result<u32> {
    let list = linear.room(store, 4, 16 * pairs.len())?;
    for (place, (name, value)) in pairs.enumerate() {
        let mut record = [0; 16];
        for (part, text) in [name, value].into_iter().enumerate() {
            let at = linear.lower(store, text.as_bytes())?;
            record[8 * part..][..4].copy_from_slice(&at.to_le_bytes());
            record[8 * part + 4..][..4].copy_from_slice(&(text.len() as u32).to_le_bytes());
        }
        put(linear.memory.data_mut(store.as_context_mut()), list + 16 * place as u32, 4, &record)?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_checked() {
        let memory: Vec<u8> = (0..64).collect();
        assert_eq!(bytes(&memory, 2, 2).unwrap(), [2, 3]);
        assert_eq!(bytes(&memory, 64, 0).unwrap(), [0; 0]);
        for (at, length) in [(65, 0), (63, 2), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
            assert!(bytes(&memory, at, length).is_err(), "{length} bytes at {at}");
        }
        assert_eq!(record::<8>(&memory, 56, 4).unwrap()[7], 63);
        assert!(record::<8>(&memory, 60, 4).is_err(), "it goes beyond the end");
        assert!(record::<8>(&memory, 2, 4).is_err(), "it is not aligned");
        assert_eq!(records::<16>(&memory, (0, 4), 4).unwrap().len(), 4);
        assert_eq!(records::<16>(&memory, (64, 0), 4).unwrap().len(), 0);
        for list in [(0, 5), (2, 1), (0, 1 << 28), (4, u32::MAX), (68, 0)] {
            assert!(records::<16>(&memory, list, 4).is_err(), "{list:?}");
        }
    }

    #[test]
    fn text_is_utf_8() {
        let memory = "a\u{e4}b".as_bytes();
        assert_eq!(text(memory, 0, 3).unwrap(), "a\u{e4}");
        assert!(text(memory, 0, 2).is_err(), "half of a character");
        assert!(text(memory, 2, 2).is_err());
        assert_eq!(text(memory, 4, 0).unwrap(), "");
    }

    #[test]
    fn what_is_written_stays_in_bounds() {
        let mut memory = [0; 16];
        put(&mut memory, 12, 4, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory[12..], [1, 2, 3, 4]);
        for (at, align) in [(13, 1), (10, 4), (u32::MAX, 1), (u32::MAX - 3, 4)] {
            assert!(put(&mut memory, at, align, &[9; 4]).is_err(), "{at}");
        }
        assert_eq!(number(&memory, 12), 0x0403_0201);
    }
}
