//! The first at every tenth pick, and no opinion at the others.

fixtures::pick!(|turn, _| turn.sequence.is_multiple_of(10).then_some(0));
