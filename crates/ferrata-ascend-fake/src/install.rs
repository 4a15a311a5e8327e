//! Installs a copy of the imitation for a test.

use libloading::Library;
use std::env;
use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The names that the vendor's libraries have.
const NAMES: [&str; 4] = ["ascendcl", "runtime", "nnopbase", "opapi"];

/// A copy of the imitation in a folder of its own, with state of its own.
#[derive(Debug)]
pub struct Fake {
    folder: PathBuf,
    library: Library,
}

impl Fake {
    /// A copy that lacks these functions and libraries (`libopapi`).
    ///
    /// # Errors
    /// When the library was not built beside this test, or the folder cannot be written.
    pub fn without(missing: &[&str]) -> io::Result<Fake> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            env::temp_dir().join(format!("ferrata-ascend-fake-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let mut bytes = fs::read(built()?)?;
        let functions = missing.iter().filter(|name| !name.starts_with("lib"));
        rename(&mut bytes, &functions.map(|name| name.as_bytes()).collect::<Vec<_>>())?;
        // One file: what is opened by all of these names is one library.
        let file = folder.join("libfake.so");
        fs::write(&file, bytes)?;
        for name in NAMES.map(|name| format!("lib{name}")) {
            if !missing.contains(&&name[..]) {
                std::os::unix::fs::symlink(&file, folder.join(format!("{name}.so")))?;
            }
        }
        // SAFETY: opening it runs nothing but Rust's own start.
        let library = unsafe { Library::new(&file) }.map_err(io::Error::other)?;
        Ok(Fake { folder, library })
    }

    /// A copy that has everything.
    ///
    /// # Errors
    /// As [`Fake::without`].
    pub fn new() -> io::Result<Fake> {
        Fake::without(&[])
    }

    /// Where the libraries are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets a call of a function fail: which one from now on, counted from 1, and with which code.
    ///
    /// # Panics
    /// When the copy lacks its own functions.
    pub fn fail(&self, function: &str, which: u64, code: i32) {
        let function = CString::new(function).expect("a name");
        // SAFETY: the function has this type, and the name is a string of C.
        unsafe {
            let fail = self
                .library
                .get::<unsafe extern "C" fn(*const c_char, u64, i32)>(b"ferrata_fake_fail");
            fail.expect("the imitation's own function")(function.as_ptr(), which, code);
        }
    }

    /// How often a function was called.
    ///
    /// # Panics
    /// When the copy lacks its own functions.
    pub fn calls(&self, function: &str) -> u64 {
        let function = CString::new(function).expect("a name");
        // SAFETY: as above.
        unsafe {
            let calls = self
                .library
                .get::<unsafe extern "C" fn(*const c_char) -> u64>(b"ferrata_fake_calls");
            calls.expect("the imitation's own function")(function.as_ptr())
        }
    }

    /// What was found so far that a chip would let pass.
    ///
    /// # Panics
    /// When the copy lacks its own functions.
    pub fn findings(&self) -> Vec<String> {
        // SAFETY: the functions have these types; the text is read before it is given back.
        let all = unsafe {
            let findings =
                self.library.get::<extern "C" fn() -> *mut c_char>(b"ferrata_fake_findings");
            let forget =
                self.library.get::<unsafe extern "C" fn(*mut c_char)>(b"ferrata_fake_forget");
            let text = findings.expect("the imitation's own function")();
            let all = CStr::from_ptr(text).to_string_lossy().into_owned();
            forget.expect("the imitation's own function")(text);
            all
        };
        all.lines().map(str::to_owned).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // What is left in a folder for temporary files harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The library, which lies beside the tests that need it.
fn built() -> io::Result<PathBuf> {
    let test = env::current_exe()?;
    let name = "libferrata_ascend_fake.so";
    let mut places =
        test.ancestors().skip(1).take(2).flat_map(|f| [f.join(name), f.join("deps").join(name)]);
    places
        .find(|path| path.is_file())
        .ok_or_else(|| io::Error::other(format!("{name} is not beside {}", test.display())))
}

/// Gives exported functions other names of the same length.
fn rename(library: &mut [u8], names: &[&[u8]]) -> io::Result<()> {
    let mut found = vec![false; names.len()];
    for at in 1..library.len() {
        if library[at - 1] != 0 || library[at] == 0 {
            continue;
        }
        let rest = &library[at..];
        let is = |name: &&[u8]| rest.starts_with(name) && rest.get(name.len()) == Some(&0);
        if let Some(i) = names.iter().position(is) {
            library[at] = b'-';
            found[i] = true;
        }
    }
    match found.iter().position(|found| !found) {
        None => Ok(()),
        Some(i) => {
            let name = String::from_utf8_lossy(names[i]);
            Err(io::Error::other(format!("the imitation has no function {name}")))
        }
    }
}
