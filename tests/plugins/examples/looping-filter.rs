//! Never comes back from a request.

fixtures::on_request!(|_| loop {
    std::hint::black_box(0);
});
