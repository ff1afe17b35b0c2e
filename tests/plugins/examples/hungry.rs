//! Takes memory in a pick until there is none.

fixtures::pick!(|_, _| {
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
});
