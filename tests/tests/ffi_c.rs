//! Builds the C library as a packager would and runs programs in C and C++ against it: the contract of peas.h, the wrapper, the
//! examples, and the lists of symbols and layouts.
//!
//! Each program is compiled by the system's `cc` with pkg-config flags from an installation in a folder of its own. The contract
//! runs plain and, where it is installed, under valgrind. `PEAS_LONG=1` makes 1,000 engines instead of 200.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Runs to the end; what it said is part of the failure.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Installations of the library: as released, and with the hooks that only tests use.
struct Installed {
    plain: PathBuf,
    hooks: PathBuf,
}

fn installed() -> &'static Installed {
    static ONCE: OnceLock<Installed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let base = root().join("target/ffi");
        // The released one last, so that target/release holds what its name says.
        let hooks = install(&base.join("hooks"), &["--features", "test-hooks"]);
        let plain = install(&base.join("plain"), &[]);
        Installed { plain, hooks }
    })
}

fn install(prefix: &Path, more: &[&str]) -> PathBuf {
    run(Command::new(env!("CARGO")).current_dir(root()).args(["build", "--release", "-p", "peas-ffi"]).args(more));
    run(Command::new(root().join("peas-ffi/install.sh")).arg(prefix));
    prefix.to_owned()
}

/// Flags as pkg-config gives them, and the place of the library for the loader.
fn flags(prefix: &Path) -> Vec<String> {
    let asked = run(Command::new("pkg-config").args(["--cflags", "--libs", "peas"]).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
    let mut flags: Vec<String> = said(&asked).split_whitespace().map(str::to_owned).collect();
    flags.push(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    flags
}

/// Compiles one program of the repository.
fn compile(compiler: &str, source: &str, prefix: &Path, into: &Path, more: &[&str]) -> PathBuf {
    let program = into.join(Path::new(source).file_stem().expect("a source has a name"));
    let mut command = Command::new(compiler);
    command.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror"]).args(more).arg(root().join(source)).arg("-o").arg(&program);
    run(command.args(flags(prefix)).arg("-lpthread"));
    program
}

fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn engines() -> &'static str {
    if std::env::var_os("PEAS_LONG").is_some() { "1000" } else { "200" }
}

#[test]
fn the_header_alone_compiles_everywhere() {
    let dir = tempfile::tempdir().expect("folder");
    for (compiler, standard, language) in
        [("cc", "c99", "c"), ("cc", "c11", "c"), ("cc", "c17", "c"), ("c++", "c++17", "c++"), ("c++", "c++20", "c++")]
    {
        for header in ["peas.h", "peas.hpp"] {
            if header == "peas.hpp" && language == "c" {
                continue;
            }
            let source = dir.path().join("alone.c");
            std::fs::write(&source, format!("#include <{header}>\n")).expect("write");
            run(Command::new(compiler)
                .args([&format!("-std={standard}"), "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", language])
                .arg(format!("-I{}", root().join("include").display()))
                .arg(&source));
        }
    }
}

#[test]
fn the_library_exports_what_the_list_says_and_keeps_its_name() {
    let library = installed().plain.join("lib/libpeas.so.0");
    let symbols = said(&run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)));
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    let wanted = std::fs::read_to_string(root().join("include/peas.symbols")).expect("list");
    assert_eq!(exported, wanted.lines().collect::<Vec<_>>());
    let dynamic = said(&run(Command::new("readelf").arg("-d").arg(&library)));
    assert!(dynamic.contains("[libpeas.so.0]") && dynamic.contains("NODELETE"), "{dynamic}");
    // What would change the host: signal handlers, exit hooks, fork hooks, limits, the folder, the locale.
    let needs = said(&run(Command::new("nm").args(["-D", "--undefined-only"]).arg(&library)));
    for never in ["signal", "sigaction", "atexit", "pthread_atfork", "setrlimit", "chdir", "umask", "setlocale", "setenv", "putenv"] {
        let found = needs.lines().any(|line| line.trim().strip_prefix("U ").is_some_and(|name| name.split('@').next() == Some(never)));
        assert!(!found, "libpeas.so uses {never}");
    }
    let stripped = tempfile::tempdir().expect("folder");
    let small = stripped.path().join("libpeas.so");
    run(Command::new("strip").arg(&library).arg("-o").arg(&small));
    let bytes = std::fs::metadata(&small).expect("stripped").len();
    println!("libpeas.so stripped: {bytes} bytes");
    // 7.1 MB in 2026-11, of which 2.3 MB are ciphers for every processor: to be seen when it grows.
    assert!(bytes < 8 << 20, "{bytes}");
}

/// The C compiler lays structs out as Rust does: `include/peas.layout` against `offsetof`.
#[test]
fn c_sees_the_layouts_of_the_list() {
    let dir = tempfile::tempdir().expect("folder");
    let list = std::fs::read_to_string(root().join("include/peas.layout")).expect("list");
    let mut program = String::from("#include <stddef.h>\n#include <peas.h>\n");
    let mut checks = 0;
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let check = match words.as_slice() {
            [name, "size", size, "align", align] => format!("sizeof({name}) == {size} && _Alignof({name}) == {align}"),
            [field, "at", at] => format!("offsetof({}) == {at}", field.replace('.', ", ")),
            _ => panic!("{line}"),
        };
        program += &format!("_Static_assert({check}, \"{line}\");\n");
        checks += 1;
    }
    assert!(checks > 40, "{checks}");
    let source = dir.path().join("layout.c");
    let compile = |text: &str| {
        std::fs::write(&source, text).expect("write");
        let include = format!("-I{}", root().join("include").display());
        Command::new("cc").args(["-std=c11", "-fsyntax-only", &include]).arg(&source).output().expect("cc").status.success()
    };
    assert!(compile(&program));
    assert!(!compile(&program.replacen("== 512", "== 520", 1)), "the control: another size must be seen");
}

#[test]
fn the_contract_holds() {
    let dir = tempfile::tempdir().expect("folder");
    let program = compile("cc", "tests/c/contract.c", &installed().hooks, dir.path(), &["-D_GNU_SOURCE", "-DPEAS_TEST_HOOKS"]);
    assert!(said(&run(Command::new(&program).arg(dir.path()))).contains("all well"));
}

#[test]
fn engines_live_well_in_a_process() {
    let dir = tempfile::tempdir().expect("folder");
    let program = compile("cc", "tests/c/living.c", &installed().plain, dir.path(), &["-D_GNU_SOURCE"]);
    let output = run(Command::new(&program).arg(dir.path()).arg(engines()));
    println!("{}", said(&output));
    assert!(said(&output).contains("all well"));
}

#[test]
fn the_contract_holds_with_the_static_library() {
    let dir = tempfile::tempdir().expect("folder");
    let prefix = &installed().plain;
    let program = dir.path().join("contract");
    let include = format!("-I{}", prefix.join("include").display());
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-DPEAS_STATIC"]).arg(include);
    cc.arg(root().join("tests/c/contract.c")).arg(prefix.join("lib/libpeas.a"));
    run(cc.args(["-lpthread", "-lm", "-ldl", "-lgcc_s", "-o"]).arg(&program));
    assert!(said(&run(Command::new(&program).arg(dir.path()))).contains("all well"));
}

/// Nothing is lost, nothing is read that was not written.
fn under_valgrind(source: &str, arguments: &[&str]) {
    if !exists("valgrind") {
        println!("valgrind is not installed: not run");
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let program = compile("cc", source, &installed().plain, dir.path(), &["-D_GNU_SOURCE"]);
    let mut command = Command::new("valgrind");
    command.args(["--error-exitcode=99", "--leak-check=full", "--fair-sched=yes", "--num-callers=30"]);
    command.args(["--errors-for-leak-kinds=definite,indirect", "--show-leak-kinds=definite,indirect"]);
    command.arg(&program).arg(dir.path()).args(arguments).env("PEAS_TEST_VALGRIND", "1");
    let output = run(&mut command);
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{}", summary.lines().filter(|line| line.contains("lost:") || line.contains("SUMMARY")).collect::<Vec<_>>().join("\n"));
    assert!(said(&output).contains("all well"));
}

#[test]
fn the_contract_holds_under_valgrind() {
    under_valgrind("tests/c/contract.c", &[]);
}

#[test]
fn engines_live_well_under_valgrind() {
    under_valgrind("tests/c/living.c", &["20"]);
}

/// Names that nobody answers, in a network of its own whose name server is a socket that nobody reads.
#[test]
fn a_silent_name_server_cannot_hold_the_host() {
    let dir = tempfile::tempdir().expect("folder");
    let program = compile("cc", "tests/c/living.c", &installed().plain, dir.path(), &["-D_GNU_SOURCE"]);
    std::fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\n").expect("write");
    let own_network = ["-r", "-m", "-n", "sh", "-c"];
    if !Command::new("unshare").args(own_network).arg("ip link set lo up").output().is_ok_and(|output| output.status.success()) {
        println!("no network namespaces here: not run");
        return;
    }
    let script = "ip link set lo up && mount --bind \"$1/resolv.conf\" /etc/resolv.conf && exec \"$0\" \"$1\" dns";
    let output = run(Command::new("unshare").args(own_network).arg(script).arg(&program).arg(dir.path()));
    println!("{}", said(&output));
    assert!(said(&output).contains("all well"));
}

#[test]
fn the_cpp_wrapper_works() {
    let dir = tempfile::tempdir().expect("folder");
    let program = compile("c++", "tests/c/wrapper.cpp", &installed().plain, dir.path(), &["-std=c++17", "-pedantic"]);
    assert!(said(&run(Command::new(program).arg(dir.path()))).contains("all well"));
}

/// The generated C# binding and the objects above it, where a compiler is installed.
#[test]
fn the_csharp_binding_works() {
    if !exists("mcs") || !exists("mono") {
        println!("mono is not installed: not run");
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    let program = dir.path().join("smoke.exe");
    let sources = ["Peas.g.cs", "Peas.cs", "Smoke.cs"].map(|name| root().join("bindings/csharp").join(name));
    run(Command::new("mcs").args(["-unsafe", "-langversion:7.2"]).arg(format!("-out:{}", program.display())).args(sources));
    let library = installed().plain.join("lib");
    let output = run(Command::new("mono").arg(&program).arg(dir.path()).env("LD_LIBRARY_PATH", library));
    assert!(said(&output).contains("all well"));
}

/// The launcher at a pseudo-terminal, against a swarm that the test program runs.
#[test]
fn the_game_updater_updates() {
    let dir = tempfile::tempdir().expect("folder");
    let secret = [0x5a; 32];
    let public = peas_core::transport::Identity::from_secret(secret).peer_id();
    let bytes: Vec<String> = public.0.iter().map(|byte| format!("{byte:#04x}")).collect();
    let key = format!("-DSTUDIO_KEY={}", bytes.join(","));
    let pedantic = ["-std=c11", "-pedantic", key.as_str()];
    let updater = compile("cc", "examples/c/game_updater.c", &installed().plain, dir.path(), &pedantic);
    let installer = compile("cc", "examples/c/install.c", &installed().plain, dir.path(), &["-std=c11", "-pedantic"]);
    let player = compile("cc", "tests/c/play_updater.c", &installed().plain, dir.path(), &["-D_GNU_SOURCE", "-lutil"]);
    let output = run(Command::new(player).arg(dir.path()).arg(updater).arg(installer));
    println!("{}", said(&output));
    assert!(said(&output).contains("all well"));
}
