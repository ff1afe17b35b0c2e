//! First, but traps in every tenth pick.

fixtures::pick!(|turn, _| {
    assert!(turn.sequence % 10 != 9, "the tenth pick");
    Some(0)
});
