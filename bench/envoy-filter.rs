//! A filter for Envoy in proxy-wasm's binary interface (0.2.1) that sets one header of the request, and does no more than
//! the interface asks for. `bench/peers` compiles it with rustc alone, for wasm32-unknown-unknown.
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_replace_header_map_value(
        map: u32,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
    ) -> u32;
}

const KEY: &[u8] = b"x-filter-0";
const VALUE: &[u8] = b"on";

#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Where the host puts what it passes: one buffer, because nothing is kept of it.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    let pages = size.div_ceil(1 << 16);
    (core::arch::wasm32::memory_grow(0, pages) << 16) as *mut u8
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_context_create(_: u32, _: u32) {}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_vm_start(_: u32, _: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(_: u32, _: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(_: u32, _: usize, _: u32) -> u32 {
    // SAFETY: both texts are constants, and the host only reads them.
    unsafe { proxy_replace_header_map_value(0, KEY.as_ptr(), KEY.len(), VALUE.as_ptr(), VALUE.len()) };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_done(_: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(_: u32) {}
