//! Functions that only tests call.

use crate::state::lock;
use ferrata_ascend::runtime::abi::Char;
use std::ffi::{CString, c_char};

/// Lets a call of a function fail: which one from now on, counted from 1, and with which code.
///
/// # Safety
/// `function` is a string of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrata_fake_fail(function: *const Char, which: u64, code: i32) {
    // SAFETY: what the caller promises.
    let function = unsafe { Char::read(function) }.unwrap_or_default();
    lock().faults.push((function, which, code));
}

/// How often a function was called.
///
/// # Safety
/// `function` is a string of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrata_fake_calls(function: *const Char) -> u64 {
    // SAFETY: what the caller promises.
    let function = unsafe { Char::read(function) }.unwrap_or_default();
    lock().calls(&function)
}

/// What was found so far, a line each; the caller gives it back to `ferrata_fake_forget`.
#[unsafe(no_mangle)]
pub extern "C" fn ferrata_fake_findings() -> *mut c_char {
    CString::new(lock().findings.join("\n")).unwrap_or_default().into_raw()
}

/// Gives what `ferrata_fake_findings` returned back.
///
/// # Safety
/// `text` came from there, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ferrata_fake_forget(text: *mut c_char) {
    // SAFETY: what the caller promises.
    drop(unsafe { CString::from_raw(text) });
}
