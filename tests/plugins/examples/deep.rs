//! Calls itself without end.

fn deeper(depth: u64) -> u64 {
    // Each call needs the one below it, so that no compiler makes a loop of them.
    if depth == u64::MAX { 0 } else { std::hint::black_box(deeper(std::hint::black_box(depth + 1)) + depth) }
}

fixtures::pick!(|turn, _| (turn.sequence < 10).then_some(0).or_else(|| Some(deeper(0) as u32)));
