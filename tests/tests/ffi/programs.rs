//! Programs in C, C++ and C# against the installed library: the contract, life in a process, the examples.

use crate::installed::*;
use crate::web_server::WebServer;
use std::path::Path;
use std::process::Command;

fn compile_c(name: &str, prefix: &Path, into: &Path) -> std::path::PathBuf {
    compile("cc", &format!("tests/c/{name}.c"), prefix, into, &["-D_GNU_SOURCE"])
}

/// Compiles a program of tests/c and runs it in a folder of its own.
fn plays(name: &str, arguments: &[&str]) {
    let dir = folder();
    let program = compile_c(name, &installed().plain, dir.path());
    all_well(Command::new(&program).arg(dir.path()).args(arguments));
}

#[test]
fn the_contract_holds() {
    plays("contract", &[]);
}

#[test]
fn engines_live_well_in_a_process() {
    plays("living", &["1000"]);
}

#[test]
fn calls_in_no_order_are_answered() {
    for seed in ["1", "2", "3"] {
        plays("sequence", &[seed, "60000"]);
    }
}

#[test]
fn a_panic_at_every_export_is_an_answer() {
    let dir = folder();
    let program = compile_c("panics", &installed().hooks, dir.path());
    all_well(Command::new(&program).arg(dir.path()).args(SYMBOLS.lines()));
}

/// While 1 GiB is moving, 99 of 100 questions are answered within a millisecond.
#[test]
fn questions_are_answered_at_once() {
    plays("latency", &["1024"]);
}

#[test]
fn a_hung_disk_cannot_hold_the_host() {
    plays("hung_disk", &[]);
}

#[test]
fn the_contract_holds_with_the_static_library() {
    let dir = folder();
    let prefix = &installed().plain;
    let program = dir.path().join("contract");
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-DPEAS_STATIC"]);
    cc.args(pkg_config(prefix, &["--cflags"])).arg(root().join("tests/c/contract.c")).arg(prefix.join("lib/libpeas.a"));
    // What pkg-config says beyond the library itself.
    cc.args(pkg_config(prefix, &["--static", "--libs"]).iter().filter(|flag| !flag.starts_with("-L") && *flag != "-lpeas"));
    run(cc.arg("-o").arg(&program));
    let needs = said(&run(Command::new("readelf").arg("-d").arg(&program)));
    assert!(needs.contains("libc.so") && !needs.contains("libpeas"), "{needs}");
    all_well(Command::new(&program).arg(dir.path()));
}

/// Nothing is lost, nothing is read that was not written.
fn under_valgrind(name: &str, arguments: &[&str]) {
    let dir = folder();
    let program = compile_c(name, &installed().plain, dir.path());
    let mut command = valgrind();
    command.arg(&program).arg(dir.path()).args(arguments).env("PEAS_TEST_VALGRIND", "1");
    let output = run(&mut command);
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{}", summary.lines().filter(|line| line.contains("lost:") || line.contains("SUMMARY")).collect::<Vec<_>>().join("\n"));
    assert!(said(&output).contains("all well"));
}

fn valgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--error-exitcode=99", "--leak-check=full", "--fair-sched=yes", "--num-callers=30"]);
    command.args(["--errors-for-leak-kinds=definite,indirect", "--show-leak-kinds=definite,indirect"]);
    command
}

#[test]
fn the_contract_holds_under_valgrind() {
    under_valgrind("contract", &[]);
}

#[test]
fn engines_live_well_under_valgrind() {
    under_valgrind("living", &["20"]);
}

#[test]
fn calls_in_no_order_are_answered_under_valgrind() {
    under_valgrind("sequence", &["4", "6000"]);
}

/// The control of those three: a host that forgets something is found out, and so is one that reads what it never wrote.
#[test]
fn valgrind_sees_what_is_wrong() {
    let dir = folder();
    let found = |code: &str| {
        let source = dir.path().join("wrong.c");
        let program = dir.path().join("wrong");
        std::fs::write(&source, format!("#include <stdlib.h>\n#include <peas.h>\n{code}")).expect("write");
        let prefix = &installed().plain;
        let mut cc = Command::new("cc");
        cc.arg("-g").arg(&source).args(pkg_config(prefix, &["--cflags", "--libs"]));
        run(cc.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display())).arg("-o").arg(&program));
        valgrind().arg(&program).output().expect("please install valgrind").status.code()
    };
    assert_eq!(found("int main(void) { return peas_version() == 0; }"), Some(0));
    assert_eq!(found("int main(void) { void *volatile lost = malloc(8); lost = 0; return lost != 0; }"), Some(99));
    assert_eq!(
        found("int main(void) { const char *o[1]; return peas_engine_new(o, 0, 0) == 5 || peas_set(0, 0, o, 0) == (o[0] ? 1 : 2); }"),
        Some(99)
    );
}

/// Names that nobody answers, in a network of its own whose name server is a socket that nobody reads.
#[test]
fn a_silent_name_server_cannot_hold_the_host() {
    let dir = folder();
    let program = compile_c("living", &installed().plain, dir.path());
    std::fs::write(dir.path().join("resolv.conf"), "nameserver 127.0.0.1\n").expect("write");
    let script = "ip link set lo up && mount --bind \"$1/resolv.conf\" /etc/resolv.conf && exec \"$0\" \"$1\" dns";
    all_well(Command::new("unshare").args(["-r", "-m", "-n", "sh", "-c", script]).arg(&program).arg(dir.path()));
}

/// With the library that lies beside this test: it has https, which the installed ones are built without.
#[test]
fn https_servers_are_believed_on_the_word_of_a_given_authority() {
    let dir = folder();
    let beside = std::env::current_exe().expect("this program").with_file_name("libpeas.so");
    let program = dir.path().join("web");
    std::os::unix::fs::symlink(beside, dir.path().join("libpeas.so.0")).expect("link");
    let mut cc = Command::new("cc");
    cc.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]).arg(format!("-I{}", root().join("include").display()));
    cc.arg(root().join("tests/c/web.c")).arg(dir.path().join("libpeas.so.0")).arg(format!("-Wl,-rpath,{}", dir.path().display()));
    run(cc.args(["-lpthread", "-o"]).arg(&program));
    let server = WebServer::secure(dir.path());
    let url = format!("https://localhost:{}/content.bin", server.addr.port());
    let authority = |form: &str| root().join("tests/tests/certificates/authority").with_extension(form);
    let said = all_well(Command::new(&program).arg(dir.path()).arg(url).arg(authority("der")).arg(authority("pem")));
    assert!(!server.asked().is_empty(), "the content came from there");
    // And what it says in JSON of such a content is explained, field by field.
    for (word, page, fields_min) in [("stats ", "STATS.md", 50), ("pea ", "DESCRIBE.md", 20)] {
        let json = said.lines().find_map(|line| line.strip_prefix(word)).expect("it prints its JSON");
        let fields = fields(&serde_json::from_str(json).expect("JSON"));
        assert!(fields.len() >= fields_min, "{fields:?}");
        let page = std::fs::read_to_string(root().join("peas-ffi/docs").join(page)).expect("page");
        let missing: Vec<&String> = fields.iter().filter(|field| !page.contains(&format!("`{field}`"))).collect();
        assert!(missing.is_empty(), "not explained in the page for {word}: {missing:?}");
    }
}

/// The names of all fields, wherever they are.
fn fields(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(map) => map.iter().flat_map(|(name, value)| std::iter::once(name.clone()).chain(fields(value))).collect(),
        serde_json::Value::Array(list) => list.iter().flat_map(fields).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_cpp_wrapper_works() {
    let dir = folder();
    let program = compile("c++", "tests/c/wrapper.cpp", &installed().plain, dir.path(), &["-std=c++17", "-pedantic"]);
    all_well(Command::new(program).arg(dir.path()));
}

/// The generated C# binding and the objects above it.
#[test]
fn the_csharp_binding_works() {
    let dir = folder();
    let program = dir.path().join("smoke.exe");
    let sources = ["Peas.g.cs", "Peas.cs", "Smoke.cs"].map(|name| root().join("bindings/csharp").join(name));
    run(Command::new("mcs").args(["-unsafe", "-langversion:7.2"]).arg(format!("-out:{}", program.display())).args(sources));
    all_well(Command::new("mono").arg(&program).arg(dir.path()).env("LD_LIBRARY_PATH", installed().plain.join("lib")));
}

/// The launcher at a pseudo-terminal, against a swarm that the test program runs.
#[test]
fn the_game_updater_updates() {
    let dir = folder();
    let secret = [0x5a; 32];
    let public = peas_core::transport::Identity::from_secret(secret).peer_id();
    let bytes: Vec<String> = public.0.iter().map(|byte| format!("{byte:#04x}")).collect();
    let key = format!("-DSTUDIO_KEY={}", bytes.join(","));
    let pedantic = ["-std=c11", "-pedantic", key.as_str()];
    let updater = compile("cc", "examples/c/game_updater.c", &installed().plain, dir.path(), &pedantic);
    let installer = compile("cc", "examples/c/install.c", &installed().plain, dir.path(), &["-std=c11", "-pedantic"]);
    let player = compile("cc", "tests/c/play_updater.c", &installed().plain, dir.path(), &["-D_GNU_SOURCE", "-lutil"]);
    all_well(Command::new(player).arg(dir.path()).arg(updater).arg(installer));
}
