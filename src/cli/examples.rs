//! What `--help` shows last: how each command is really called. A test of the command line tries that clap takes them.

macro_rules! examples {
    ($($name:ident: $($line:literal)+);* $(;)?) => {$(
        pub(super) const $name: &str = concat!("EXAMPLES:", $("\n  ", $line),+);
    )*
        /// Every line.
        #[cfg(test)]
        pub(super) const ALL: &[&str] = &[$($($line),+),*];
    };
}

examples! {
    MOONGATE:
        "moongate demo                                    # everything on this machine, to try it"
        "moongate run --config moongate.toml"
        "moongate status                                  # how a running gateway is";
    RUN:
        "moongate run                                     # with moongate.toml, if it is here"
        "moongate run --zookeeper zk1:2181,zk2:2181,zk3:2181 --listen 0.0.0.0:80"
        "MOONGATE_WORKERS=4 moongate run --config /etc/moongate/moongate.toml --log info,moongate::registry=debug";
    DEMO:
        "moongate demo"
        "moongate demo --listen 127.0.0.1:8000 --plugins my-plugins";
    CHECK:
        "moongate check --config moongate.toml && systemctl reload moongate";
    CONFIG:
        "moongate config --print --config moongate.toml   # what holds, and where it is from"
        "moongate config --schema > moongate.schema.json  # for editors"
        "moongate config --reference | less";
    STATUS:
        "moongate status --admin 10.0.0.7:9900"
        "MOONGATE_ADMIN_TOKEN=... moongate status --json | jq .services[].name"
        "moongate status --watch";
    PLUGIN:
        "moongate plugin new mine --kind balancer --lang rust"
        "moongate plugin test mine/mine.wasm";
    HEALTHCHECK:
        "moongate healthcheck"
        "moongate healthcheck --admin 127.0.0.1:9901";
    COMPLETIONS:
        "moongate completions bash > /etc/bash_completion.d/moongate"
        "moongate completions zsh > ~/.zfunc/_moongate"
        "moongate completions fish > ~/.config/fish/completions/moongate.fish";
    MAN:
        "moongate man | man -l -"
        "moongate man /usr/local/share/man/man1";
    INSPECT:
        "moongate plugin inspect plugins/mine.wasm";
    NEW:
        "moongate plugin new sticky-carts --kind balancer --lang rust"
        "moongate plugin new add-header --kind filter --lang python";
    TEST:
        "moongate plugin test mine.wasm --config '{\"rate\": 10}'";
    BENCH:
        "moongate plugin bench mine.wasm";
}
