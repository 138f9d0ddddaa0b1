//! An installation of the library, and how programs are compiled against it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{LazyLock, OnceLock};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Runs to the end; what it said is part of the failure.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: is its package installed? See tests/ffi_c.rs"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program of tests/c, which says at its end that all is well.
pub fn all_well(command: &mut Command) -> String {
    let said = said(&run(command));
    println!("{said}");
    assert!(said.ends_with("all well\n"), "{command:?} said: {said}");
    said
}

/// Installations of the library: as released, and with the hooks that only tests use.
pub struct Installed {
    pub plain: PathBuf,
    pub hooks: PathBuf,
}

pub fn installed() -> &'static Installed {
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

/// pkg-config, looking at nothing but this installation.
pub fn pkg_config(prefix: &Path, arguments: &[&str]) -> Vec<String> {
    let asked = run(Command::new("pkg-config").args(arguments).arg("peas").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")));
    said(&asked).split_whitespace().map(str::to_owned).collect()
}

/// Compiles one program of the repository.
pub fn compile(compiler: &str, source: &str, prefix: &Path, into: &Path, more: &[&str]) -> PathBuf {
    let program = into.join(Path::new(source).file_stem().expect("a source has a name"));
    let mut command = Command::new(compiler);
    command.args(["-g", "-O1", "-Wall", "-Wextra", "-Werror"]).args(more).arg(root().join(source)).arg("-o").arg(&program);
    command.args(pkg_config(prefix, &["--cflags", "--libs"])).arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    run(command.arg("-lpthread"));
    program
}

/// A folder that is gone when this is.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

/// The names that the library exports, one a line.
pub static SYMBOLS: LazyLock<String> = LazyLock::new(|| std::fs::read_to_string(root().join("include/peas.symbols")).expect("list"));
