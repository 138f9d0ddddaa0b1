//! The extension `peas._peas`: the smallest set of handles and functions from which the Python package builds its API.
//!
//! Always true: no call that can block holds the interpreter (`py.detach`); every wait is cut into slices between which
//! Ctrl-C is looked for; no engine thread ever waits for the interpreter (`try_attach` on a blocking thread only); a handle
//! that crossed a `fork` answers `ClosedError` and is never torn down. Parsing of rates, durations and trust does not
//! belong here: Python does it, where it is typed and documented.

mod engine;
mod errors;
mod job;
mod pea;
mod work;

use pyo3::prelude::*;
use std::ffi::OsString;

/// What Python imports.
#[pymodule(gil_used = false)]
fn _peas(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<engine::RawEngine>()?;
    module.add_class::<job::RawJob>()?;
    module.add_class::<job::Watch>()?;
    module.add_class::<pea::RawPea>()?;
    module.add_function(wrap_pyfunction!(work::admit, module)?)?;
    module.add_function(wrap_pyfunction!(work::create, module)?)?;
    module.add_function(wrap_pyfunction!(work::read_pea, module)?)?;
    module.add_function(wrap_pyfunction!(work::verify, module)?)?;
    module.add_function(wrap_pyfunction!(command, module)?)
}

/// The `peas` program: its exit code. For a process that does nothing else: signals are the program's from here on.
#[pyfunction]
#[pyo3(signature = (words, program))]
fn command(py: Python<'_>, words: Vec<OsString>, program: Vec<OsString>) -> u8 {
    py.detach(|| peas_cli::main(words, program))
}
