//! The macros that make a type a plugin, and the states they keep: one for each binding.

/// The index that means "no opinion".
pub const NO_OPINION: u32 = u32::MAX;

/// The states of a plugin's bindings. The gateway hands out small numbers, so a list and no map.
#[derive(Debug)]
pub struct Bindings<T>(Vec<Option<T>>);

impl<T> Bindings<T> {
    /// No bindings yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Configures a binding, replacing what its number meant before. After an error it means nothing.
    pub fn configure(&mut self, binding: u32, state: Result<T, String>) -> Result<(), String> {
        let place = binding as usize;
        if place >= self.0.len() {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = None;
        self.0[place] = Some(state?);
        Ok(())
    }

    /// The state of a binding. Panics without one: a filter that guards must not let a request pass instead.
    pub fn state(&mut self, binding: u32) -> &mut T {
        match self.0.get_mut(binding as usize) {
            Some(Some(state)) => state,
            _ => panic!("a binding was called that was never configured"),
        }
    }
}

impl<T> Default for Bindings<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Lets a panic say in the gateway's log what it was; without it the gateway sees only a trap.
pub fn log_panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| crate::log(crate::Level::Error, &panic.to_string())));
}

/// Makes a type the plugin, by the traits that are named: `plugin!(Sticky: Balancer, ResponseFilter);`. The first must be
/// [`Balancer`](crate::Balancer), [`RequestFilter`](crate::RequestFilter) or [`ResponseFilter`](crate::ResponseFilter), and
/// its `configure` is the one that is called. `schema = "…"` or `schema = include_str!("…")` behind them puts a JSON schema
/// of the configuration into the file, which `moongate plugin inspect` shows.
#[macro_export]
macro_rules! plugin {
    ($type:ident: $first:ident $(, $trait:ident)* $(; schema = $schema:expr)? $(;)?) => {
        $crate::__plugin!($type, $first);
        $crate::__exports!($first);
        $($crate::__exports!($trait);)*
        $($crate::__section!("config-schema", $schema);)?
    };
}

/// What the gateway calls of each trait.
#[doc(hidden)]
#[macro_export]
macro_rules! __exports {
    (Balancer) => {
        const _: () = {
            use $crate::bindings::balancer::exports::moongate::plugin::balancer;
            impl balancer::Guest for __MoongatePlugin {
                fn update(binding: u32, endpoints: Vec<$crate::Endpoint>) -> Result<(), String> {
                    __MoongatePlugin::state(binding, |state| $crate::Balancer::update(state, endpoints))
                }
                fn pick(binding: u32, sequence: u64, random: u64, attempt: u32) -> u32 {
                    let turn = $crate::Turn { sequence, random, attempt };
                    __MoongatePlugin::state(binding, |state| $crate::Balancer::pick(state, turn))
                        .unwrap_or($crate::export::NO_OPINION)
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::balancer::export_balancer!(
                __MoongatePlugin with_types_in $crate::bindings::balancer
            );
        };
    };
    (RequestFilter) => {
        const _: () = {
            use $crate::bindings::request_filter::exports::moongate::plugin::request_filter;
            impl request_filter::Guest for __MoongatePlugin {
                fn on_request(binding: u32) -> $crate::Verdict {
                    __MoongatePlugin::state(binding, |state| {
                        $crate::RequestFilter::on_request(state, $crate::Request::in_hand())
                    })
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::request_filter::export_request_filter!(
                __MoongatePlugin with_types_in $crate::bindings::request_filter
            );
        };
    };
    (ResponseFilter) => {
        const _: () = {
            use $crate::bindings::response_filter::exports::moongate::plugin::response_filter;
            impl response_filter::Guest for __MoongatePlugin {
                fn on_response(binding: u32) -> $crate::Verdict {
                    __MoongatePlugin::state(binding, |state| {
                        let (request, response) = ($crate::Request::in_hand(), $crate::Response::in_hand());
                        $crate::ResponseFilter::on_response(state, request, response)
                    })
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::response_filter::export_response_filter!(
                __MoongatePlugin with_types_in $crate::bindings::response_filter
            );
        };
    };
    (RequestBodyFilter) => {
        const _: () = {
            use $crate::bindings::request_body_filter::exports::moongate::plugin::request_body_filter;
            impl request_body_filter::Guest for __MoongatePlugin {
                fn on_request_body(binding: u32, piece: Vec<u8>, last: bool) -> $crate::BodyVerdict {
                    __MoongatePlugin::state(binding, |state| {
                        let request = $crate::Request::in_hand();
                        $crate::RequestBodyFilter::on_request_body(state, request, piece, last)
                    })
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::request_body_filter::export_request_body_filter!(
                __MoongatePlugin with_types_in $crate::bindings::request_body_filter
            );
        };
    };
    (ResponseBodyFilter) => {
        const _: () = {
            use $crate::bindings::response_body_filter::exports::moongate::plugin::response_body_filter;
            impl response_body_filter::Guest for __MoongatePlugin {
                fn on_response_body(binding: u32, piece: Vec<u8>, last: bool) -> $crate::BodyVerdict {
                    __MoongatePlugin::state(binding, |state| {
                        let (request, response) = ($crate::Request::in_hand(), $crate::Response::in_hand());
                        $crate::ResponseBodyFilter::on_response_body(state, request, response, piece, last)
                    })
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::response_body_filter::export_response_body_filter!(
                __MoongatePlugin with_types_in $crate::bindings::response_body_filter
            );
        };
    };
}

/// A custom section of the file.
#[doc(hidden)]
#[macro_export]
macro_rules! __section {
    ($name:literal, $text:expr) => {
        const _: () = {
            #[cfg(target_arch = "wasm32")]
            #[used]
            #[allow(unsafe_code)]
            #[unsafe(link_section = $name)]
            static SECTION: [u8; $text.len()] = {
                let mut bytes = [0; $text.len()];
                bytes.copy_from_slice($text.as_bytes());
                bytes
            };
        };
    };
}

/// What every plugin has: the states, `configure`, and the version as the custom section `version` of the
/// WebAssembly tool conventions.
#[doc(hidden)]
#[macro_export]
macro_rules! __plugin {
    ($type:ident, $trait:ident) => {
        // Public, so that it counts as used where nothing is exported: outside of WebAssembly, as in unit tests, whose
        // linkers cannot have names such as these.
        #[doc(hidden)]
        #[allow(unreachable_pub, missing_debug_implementations)]
        pub struct __MoongatePlugin;

        const _: () = {
            use std::cell::RefCell;
            use $crate::bindings::configurable::exports::moongate::plugin::configurable;

            // Not shared by threads: an instance has one. Nothing calls back into the plugin while it is borrowed.
            thread_local! {
                static BINDINGS: RefCell<$crate::export::Bindings<$type>> =
                    const { RefCell::new($crate::export::Bindings::new()) };
            }

            impl __MoongatePlugin {
                fn state<R>(binding: u32, call: impl FnOnce(&mut $type) -> R) -> R {
                    BINDINGS.with_borrow_mut(|bindings| call(bindings.state(binding)))
                }
            }

            impl configurable::Guest for __MoongatePlugin {
                fn configure(binding: u32, config: String) -> Result<(), String> {
                    $crate::export::log_panics();
                    let state = <$type as $crate::$trait>::configure($crate::Config::new(&config));
                    BINDINGS.with_borrow_mut(|bindings| bindings.configure(binding, state))
                }
            }

            #[cfg(target_arch = "wasm32")]
            $crate::bindings::configurable::export_configurable!(
                __MoongatePlugin with_types_in $crate::bindings::configurable
            );
        };
        $crate::__section!("version", env!("CARGO_PKG_VERSION"));
    };
}
