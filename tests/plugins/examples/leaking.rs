//! In turn, and every pick takes memory that nobody gets back.

fixtures::pick!(|turn, count| {
    std::mem::forget(std::hint::black_box(vec![1u8; 64]));
    Some(turn.sequence.checked_rem(count.into())? as u32)
});
