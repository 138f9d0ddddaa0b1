//! The C library from outside, as a packager builds it and a host uses it.
//!
//! Everything here runs the real thing: `cargo build --release -p peas-ffi`, an installation in a folder of its own, the system's
//! compilers with pkg-config flags. `abi` is about what must stay, `programs` about what it does. Needs (from Debian): gcc, g++,
//! binutils, pkg-config, valgrind, abigail-tools, doxygen, mono-mcs, mono-runtime, bindfs, iproute2, and root for the two that make
//! a mount and a network of their own; what is missing fails and says what to install. `tests/c/run` has the longer forms.

#![cfg(target_os = "linux")]

#[path = "ffi/abi.rs"]
mod abi;
#[path = "ffi/installed.rs"]
mod installed;
#[path = "ffi/programs.rs"]
mod programs;
#[path = "common/web.rs"]
mod web_server;
