//! Gives the shared library its name (`libpeas.so.0`) and pins it in memory: its threads may outlive a `dlclose`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let os = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    // cargo-c names the library itself.
    let named_by_cargo_c = std::env::var_os("CARGO_FEATURE_CAPI").is_some();
    if matches!(os.as_str(), "linux" | "android" | "freebsd") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        if !named_by_cargo_c {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libpeas.so.0");
        }
    }
    if os == "macos" && !named_by_cargo_c {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libpeas.0.dylib");
    }
}
