//! First, but loops for ever from the tenth pick on: it passes its trial.

fixtures::pick!(|turn, _| {
    while std::hint::black_box(turn.sequence) >= 10 {}
    Some(0)
});
