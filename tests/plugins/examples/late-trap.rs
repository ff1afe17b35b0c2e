//! First, but traps from the tenth pick on: it passes its trial.

fixtures::pick!(|turn, _| {
    assert!(turn.sequence < 10, "the tenth pick");
    Some(0)
});
