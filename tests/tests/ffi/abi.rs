//! What must stay: names, layouts, values, and programs that were compiled long ago.
//!
//! `include/peas.symbols` and `include/peas.layout` are today's; `tests/c/old/VERSION/peas.h` is the header of a release, and never
//! changes again.

use crate::installed::*;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// 6 MB, as our user asked; 5.0 MB in 2026-11.
const STRIPPED_BYTES_MAX: u64 = 6_000_000;

const DIALECTS: [(&str, &str, &str); 5] =
    [("cc", "c99", "c"), ("cc", "c11", "c"), ("cc", "c17", "c"), ("c++", "c++17", "c++"), ("c++", "c++20", "c++")];

#[test]
fn the_header_alone_compiles_everywhere() {
    let dir = folder();
    for (compiler, standard, language) in DIALECTS {
        for header in ["peas.h", "peas.hpp"] {
            if header == "peas.hpp" && language == "c" {
                continue;
            }
            let source = dir.path().join("alone.c");
            std::fs::write(&source, format!("#include <{header}>\n")).expect("write");
            let mut command = Command::new(compiler);
            command.args([&format!("-std={standard}"), "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", "-x", language]);
            // Engines of games are built like this.
            if header == "peas.h" && language == "c++" {
                command.args(["-fno-exceptions", "-fno-rtti"]);
            }
            run(command.arg(format!("-I{}", root().join("include").display())).arg(&source));
        }
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn the_library_exports_what_the_list_says_and_keeps_its_name() {
    let library = installed().plain.join("lib/libpeas.so.0");
    let symbols = said(&run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library)));
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    assert_eq!(exported, SYMBOLS.lines().collect::<Vec<_>>());
    let dynamic = said(&run(Command::new("readelf").arg("-d").arg(&library)));
    assert!(dynamic.contains("[libpeas.so.0]") && dynamic.contains("NODELETE"), "{dynamic}");
    // What would change the host: signal handlers, exit hooks, fork hooks, limits, the folder, the locale.
    let needs = said(&run(Command::new("nm").args(["-D", "--undefined-only"]).arg(&library)));
    let uses =
        |name: &str| needs.lines().any(|line| line.trim().strip_prefix("U ").is_some_and(|used| used.split('@').next() == Some(name)));
    for never in ["signal", "sigaction", "atexit", "pthread_atfork", "setrlimit", "chdir", "umask", "setlocale", "setenv", "putenv"] {
        assert!(!uses(never), "libpeas.so uses {never}");
    }
    assert!(uses("pthread_sigmask"), "the control: the list of what it uses is read rightly");
}

#[test]
fn the_stripped_library_is_small() {
    let dir = folder();
    let small = dir.path().join("libpeas.so");
    run(Command::new("strip").arg(installed().plain.join("lib/libpeas.so.0")).arg("-o").arg(&small));
    let bytes = std::fs::metadata(&small).expect("stripped").len();
    println!("libpeas.so stripped: {bytes} bytes");
    assert!(bytes < STRIPPED_BYTES_MAX, "{bytes}");
}

/// Whether C code is accepted with a header of this folder.
fn accepted(include: &Path, code: &str) -> bool {
    let dir = folder();
    let source = dir.path().join("check.c");
    std::fs::write(&source, format!("#include <stddef.h>\n#include <peas.h>\n{code}")).expect("write");
    let include = format!("-I{}", include.display());
    Command::new("cc").args(["-std=c11", "-fsyntax-only", &include]).arg(&source).output().expect("cc").status.success()
}

/// The assertions of a list of layouts, as C.
fn layout_checks(list: &str) -> String {
    let mut code = String::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let check = match words.as_slice() {
            [name, "size", size, "align", align] => format!("sizeof({name}) == {size} && _Alignof({name}) == {align}"),
            [field, "at", at] => format!("offsetof({}) == {at}", field.replace('.', ", ")),
            _ => panic!("{line}"),
        };
        let _ = writeln!(code, "_Static_assert({check}, \"{line}\");");
    }
    assert!(code.lines().count() > 40, "{code}");
    code
}

/// The assertions of a header's constants: each must have the value it had.
fn value_checks(header: &str) -> String {
    let mut code = String::new();
    for line in header.lines().map(|line| line.trim().trim_end_matches(',')) {
        if let Some((name, value)) = line.split_once(" = ").filter(|(name, _)| name.starts_with("PEAS_") && !name.contains(' ')) {
            let _ = writeln!(code, "_Static_assert({name} == {value}, \"{name}\");");
        }
    }
    assert!(code.lines().count() > 40, "{code}");
    code
}

/// The C compiler lays structs out as Rust does: `include/peas.layout` against `offsetof`.
#[test]
fn c_sees_the_layouts_of_the_list() {
    let checks = layout_checks(&read(root().join("include/peas.layout")));
    assert!(accepted(&root().join("include"), &checks));
    assert!(!accepted(&root().join("include"), &checks.replacen("== 512", "== 520", 1)), "the control: another size must be seen");
}

/// Folders of the releases that must still work.
fn releases() -> Vec<PathBuf> {
    let releases: Vec<PathBuf> =
        std::fs::read_dir(root().join("tests/c/old")).expect("releases").map(|entry| entry.expect("entry").path()).collect();
    assert!(!releases.is_empty());
    releases
}

#[test]
fn no_value_and_no_place_changed_since_a_release() {
    let today = root().join("include");
    for release in releases() {
        // Fields that were reserved may have got names; everything else is where it was.
        let layout: String =
            read(release.join("peas.layout")).lines().filter(|line| !line.contains(".reserved")).map(|line| format!("{line}\n")).collect();
        let (places, values) = (layout_checks(&layout), value_checks(&read(release.join("peas.h"))));
        assert!(accepted(&today, &places) && accepted(&today, &values), "{}", release.display());
        let control = values.replacen("PEAS_FULL == -5", "PEAS_FULL == -6", 1);
        assert!(control != values && !accepted(&today, &control), "the control: another value must be seen");
    }
}

/// A library without a body for each function of a header, for `abidiff` to read: the types are all there is to it.
fn hollow(header: &str, into: &Path) -> PathBuf {
    let (mut code, mut functions) = (String::new(), 0);
    // Functions are what stands at the beginning of a line; the macro's own definition does not.
    for part in header.split("\nPEAS_API").skip(1) {
        match part.split_once(';') {
            Some((prototype, _)) if prototype.contains("peas_") && prototype.contains('(') => {
                let _ = writeln!(code, "{prototype} {{ __builtin_trap(); }}");
                functions += 1;
            }
            _ => panic!("not a prototype: {part}"),
        }
    }
    assert!(functions > 20, "{code}");
    std::fs::create_dir_all(into).expect("folder");
    std::fs::write(into.join("peas.h"), header).expect("write");
    std::fs::write(into.join("hollow.c"), format!("#include <peas.h>\n{code}")).expect("write");
    let library = into.join("libpeas.so");
    let include = format!("-I{}", into.display());
    run(Command::new("cc").args(["-g", "-shared", "-fPIC", &include]).arg(into.join("hollow.c")).arg("-o").arg(&library));
    library
}

/// Fields that were reserved in a release and have a name today: the struct's reserved words then and now.
const NAMED_SINCE: [(&str, &str, &str); 1] = [("  uint64_t bytes_from_web;\n", "  uint64_t reserved[15];", "  uint64_t reserved[16];")];

/// Today's header with those names taken back, so that all the rest can be compared.
fn before_names(header: &str) -> String {
    NAMED_SINCE.iter().fold(header.to_owned(), |header, (field, now, then)| {
        assert!(header.matches(field).count() == 1 && header.matches(now).count() == 1, "{field}");
        header.replace(field, "").replace(now, then)
    })
}

/// `abidiff` finds no difference between a release and today but functions and names that came later.
#[test]
fn abidiff_sees_no_change_since_a_release() {
    let dir = folder();
    let differs = |old: &Path, new: &Path| {
        let output = Command::new("abidiff").arg("--no-added-syms").args([old, new]).output().expect("please install abigail-tools");
        (!output.status.success()).then(|| said(&output))
    };
    let header = before_names(&read(root().join("include/peas.h")));
    let today = hollow(&header, &dir.path().join("today"));
    for release in releases() {
        let old = hollow(&read(release.join("peas.h")), &dir.path().join("old"));
        if let Some(report) = differs(&old, &today) {
            panic!("{}:\n{report}", release.display());
        }
        // The controls: a type, a place, a function that is gone.
        for (from, to) in [
            ("peas_job job,\n", "uint32_t job,\n"),
            ("  uint64_t upload_limit;", "  uint64_t first, upload_limit;"),
            ("peas_status peas_cancel(", "peas_status peas_stop("),
        ] {
            let changed = header.replacen(from, to, 1);
            assert_ne!(changed, header, "{from}");
            assert!(differs(&old, &hollow(&changed, &dir.path().join("changed"))).is_some(), "{to} was not seen");
        }
    }
}

/// A program that was compiled with the header of a release runs with today's library.
#[test]
fn programs_of_a_release_still_run() {
    for release in releases() {
        let dir = folder();
        let program = dir.path().join("first");
        let prefix = &installed().plain;
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror"]).arg(format!("-I{}", release.display())).arg(release.join("first.c"));
        cc.arg(format!("-L{}", prefix.join("lib").display())).arg("-lpeas").arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
        run(cc.arg("-o").arg(&program));
        all_well(Command::new(&program).arg(dir.path()));
    }
}

/// What the guide shows in C is C, and calls what there is.
#[test]
fn the_guides_code_compiles() {
    let guide = read(root().join("peas-ffi/docs/GUIDE.md"));
    let blocks: Vec<&str> = guide.split("```c\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 7, "{blocks:?}");
    let program = |change: fn(&str) -> String| {
        let mut code = String::from(
            "peas_engine *engine; peas_job job; peas_error error; peas_info info; peas_event events[16]; int count, launcher;
            void complain(const char *), draw_bar(uint64_t, uint64_t, uint64_t), handle(peas_event *, int), on_event(void *, const peas_event *);\n",
        );
        for (at, block) in blocks.iter().enumerate() {
            let _ = writeln!(code, "void block{at}(void) {{\n{}\n}}", change(block));
        }
        format!("#pragma GCC diagnostic error \"-Wimplicit-function-declaration\"\n{code}")
    };
    let include = root().join("include");
    assert!(accepted(&include, &program(str::to_owned)), "{}", program(str::to_owned));
    assert!(
        !accepted(&include, &program(|block| block.replace("peas_wait", "peas_await"))),
        "the control: a call that is not must be seen"
    );
}

/// Doxygen finds a description of everything in the header, and its pages with the guide and the tables.
#[test]
fn the_reference_is_complete() {
    let config = read(root().join("peas-ffi/docs/Doxyfile"));
    let documented = |header: &str| {
        let dir = folder();
        std::fs::create_dir(dir.path().join("include")).expect("folder");
        std::fs::write(dir.path().join("include/peas.h"), header).expect("write");
        std::fs::create_dir_all(dir.path().join("peas-ffi")).expect("folder");
        run(Command::new("cp").arg("-r").arg(root().join("peas-ffi/docs")).arg(dir.path().join("peas-ffi/docs")));
        std::fs::write(dir.path().join("Doxyfile"), format!("{config}\nOUTPUT_DIRECTORY = pages\n")).expect("write");
        let output = Command::new("doxygen").arg("Doxyfile").current_dir(dir.path()).output().expect("please install doxygen");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let page = read(dir.path().join("pages/html/peas_8h.html"));
        for symbol in SYMBOLS.lines() {
            assert!(page.contains(&format!("{symbol}</a>")), "{symbol} is not in the reference");
        }
        Ok(())
    };
    let header = read(root().join("include/peas.h"));
    documented(&header).unwrap_or_else(|warnings| panic!("{warnings}"));
    let bare = header.replacen("/**\n * Ends a job.", "/*\n * Ends a job.", 1);
    assert!(bare != header && documented(&bare).is_err(), "the control: a function without a description must be seen");
}
