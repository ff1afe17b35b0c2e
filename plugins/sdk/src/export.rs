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

/// Makes a [`Balancer`](crate::Balancer) the plugin.
#[macro_export]
macro_rules! balancer {
    ($type:ident) => {
        $crate::__plugin!($type, Balancer);
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
}

/// Makes a [`RequestFilter`](crate::RequestFilter) the plugin.
#[macro_export]
macro_rules! request_filter {
    ($type:ident) => {
        $crate::__plugin!($type, RequestFilter);
        $crate::__on_request!();
    };
}

/// Makes a [`ResponseFilter`](crate::ResponseFilter) the plugin.
#[macro_export]
macro_rules! response_filter {
    ($type:ident) => {
        $crate::__plugin!($type, ResponseFilter);
        $crate::__on_response!();
    };
}

/// Makes a type that is both a [`RequestFilter`](crate::RequestFilter) and a
/// [`ResponseFilter`](crate::ResponseFilter) the plugin. `RequestFilter::configure` is the one that is called.
#[macro_export]
macro_rules! filter {
    ($type:ident) => {
        $crate::__plugin!($type, RequestFilter);
        $crate::__on_request!();
        $crate::__on_response!();
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __on_request {
    () => {
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
}

#[doc(hidden)]
#[macro_export]
macro_rules! __on_response {
    () => {
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

            #[cfg(target_arch = "wasm32")]
            #[used]
            #[allow(unsafe_code)]
            #[unsafe(link_section = "version")]
            static VERSION: [u8; env!("CARGO_PKG_VERSION").len()] = {
                let mut bytes = [0; env!("CARGO_PKG_VERSION").len()];
                bytes.copy_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
                bytes
            };
        };
    };
}
