//! Never comes back from a pick.

fixtures::pick!(|_, _| loop {
    std::hint::black_box(0);
});
