//! The vendor's runtime, opened and started.

use super::abi::{self, Char, Code, Package, PackageVersion};
use super::fault::meaning;
use super::functions::{Declaration, Functions, Library};
use super::libraries::{Libraries, Search};
use ferrata_ir::{Error, Result};
use std::ffi::c_void;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

/// The vendor's runtime. Dropping the last owner ends it.
pub struct Cann {
    libraries: Libraries,
    /// Whether this is who started it, and has to end it.
    started: bool,
}

/// Calls a function of the runtime; its name and its code make the error.
macro_rules! call {
    ($cann:expr, $name:ident($($argument:expr),* $(,)?)) => {
        $cann.check(stringify!($name), ($cann.functions().$name)($($argument),*))
    };
}
pub(crate) use call;

impl Cann {
    /// Opens the libraries and starts the runtime.
    ///
    /// # Errors
    /// When a library or function is missing that nothing works without, or when it does not start.
    pub fn open(search: &Search) -> Result<Arc<Cann>> {
        let mut cann = Cann { libraries: Libraries::open(search)?, started: false };
        // SAFETY: it may be called at any time; it takes no configuration.
        let code = unsafe { (cann.functions().aclInit)(ptr::null()) };
        // Somebody else in this process may use the runtime, too.
        if code != abi::REPEAT_INITIALIZE {
            cann.check("aclInit", code)?;
            cann.started = true;
        }
        Ok(Arc::new(cann))
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.libraries.functions
    }

    /// The address of an operator's function.
    pub(crate) fn operator(&self, name: &str) -> Option<*const c_void> {
        self.libraries.operator(name)
    }

    /// The error that a code is, with what the runtime says of it.
    ///
    /// # Errors
    /// Unless the code is 0.
    pub(crate) fn check(&self, function: &str, code: Code) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the text belongs to the runtime, which keeps it until this thread's next call.
        let said = unsafe { Char::read((self.functions().aclGetRecentErrMsg)()) };
        let mut message = format!("{function} fails with {code}");
        let known = meaning(code);
        if let Some((meaning, _)) = known {
            message += &format!(": {meaning}");
        }
        if let Some(said) = said {
            message += &format!("; the runtime says: {said}");
        }
        let error = Error::new(message);
        Err(match known.and_then(|(_, help)| help) {
            Some(help) => error.help(help),
            None => error,
        })
    }

    /// How many chips there are.
    ///
    /// # Errors
    /// When the driver does not answer.
    pub fn chips(&self) -> Result<usize> {
        let mut count = 0;
        // SAFETY: it writes one number.
        unsafe { call!(self, aclrtGetDeviceCount(&mut count)) }?;
        Ok(count as usize)
    }

    /// The chips' name, as the vendor's compiler knows it.
    pub fn chip(&self) -> Option<String> {
        // SAFETY: the text is a constant of the runtime.
        unsafe { Char::read((self.functions().aclrtGetSocName)()) }
    }

    /// The interface's version.
    ///
    /// # Errors
    /// When the runtime does not say.
    pub fn version(&self) -> Result<[i32; 3]> {
        let [mut major, mut minor, mut patch] = [0; 3];
        // SAFETY: it writes three numbers.
        unsafe { call!(self, aclrtGetVersion(&mut major, &mut minor, &mut patch)) }?;
        Ok([major, minor, patch])
    }

    /// The release of a package, if the runtime says it.
    pub fn release(&self, package: Package) -> Option<String> {
        let release = self.functions().aclsysGetCANNVersion?;
        let mut found =
            PackageVersion { version: [0; 128], parts: [[0; 64]; 4], reserved: [0; 128] };
        // SAFETY: it fills the struct.
        let code = unsafe { release(package, &mut found) };
        let text = found.version.split(|b| *b == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text).trim().to_owned();
        (code == 0 && !text.is_empty()).then_some(text)
    }

    /// Libraries that were opened, and from where.
    pub fn opened(&self) -> impl Iterator<Item = (Library, &Path)> {
        self.libraries.opened()
    }

    /// Libraries that were not found, and why.
    pub fn absent(&self) -> &[(Library, String)] {
        &self.libraries.absent
    }

    /// Functions that were not found; each says what is lost.
    pub fn missing(&self) -> &[&'static Declaration] {
        &self.libraries.missing
    }
}

impl Drop for Cann {
    fn drop(&mut self) {
        if self.started {
            // SAFETY: everything that was made of it holds an owner, so nothing is left. That it
            // fails cannot be told to anybody.
            unsafe { (self.functions().aclFinalize)() };
        }
    }
}
