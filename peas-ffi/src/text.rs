//! C text in and out.

use crate::failure::Failure;
use safer_ffi::c_char;
use std::ffi::CStr;
use std::path::PathBuf;

/// Options in one call; more is a missing NULL at the end.
const OPTIONS_MAX: usize = 4096;

/// A string that must be there. `what` names the argument.
pub(crate) fn required(text: *const c_char, what: &str) -> Result<String, Failure> {
    if text.is_null() {
        return Err(Failure::invalid(format!("{what} is NULL")));
    }
    // SAFETY: not NULL; the host says that it is NUL-terminated and stays until the call returns.
    let text = unsafe { CStr::from_ptr(text.cast()) };
    text.to_str().map(str::to_owned).map_err(|_| Failure::invalid(format!("{what} is not UTF-8")))
}

/// A path that must be there.
pub(crate) fn path(text: *const c_char, what: &str) -> Result<PathBuf, Failure> {
    match required(text, what)? {
        empty if empty.is_empty() => Err(Failure::invalid(format!("{what} is empty"))),
        path => Ok(path.into()),
    }
}

/// A NULL-terminated array of strings, or NULL for none.
pub(crate) fn list(texts: *const *const c_char) -> Result<Vec<String>, Failure> {
    let mut list = Vec::new();
    if texts.is_null() {
        return Ok(list);
    }
    loop {
        // SAFETY: the host says that the array ends with NULL, and it has not come yet.
        let text = unsafe { *texts.add(list.len()) };
        if text.is_null() {
            return Ok(list);
        }
        if list.len() == OPTIONS_MAX {
            return Err(Failure::invalid("too many options: does the array end with NULL?"));
        }
        list.push(required(text, "an option")?);
    }
}

/// Like snprintf: writes what fits with a NUL, cut at a character, and returns the whole length without it.
pub(crate) fn fill(out: *mut c_char, capacity: usize, text: &str) -> usize {
    if !out.is_null() && capacity > 0 {
        let mut end = text.len().min(capacity - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        // SAFETY: not NULL; the host says that `capacity` bytes may be written, and `end` is less.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast::<u8>(), end);
            out.cast::<u8>().add(end).write(0);
        }
    }
    text.len()
}
