//! Own kernels: binaries, and launches. Newer releases have functions for both in libascendcl, older
//! ones in libruntime; what is there is used.

use super::abi::{self, BinaryOption, BinaryOptionKind, BinaryOptions, Char, OldBinary};
use super::cann::Cann;
use super::functions::signature;
use super::stream::{Npu, Stream};
use crate::emit::{Core, ENTRY};
use crate::sim::Parameter;
use ferrata_ir::{Error, Result};
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

/// A kernel on a chip.
pub struct Kernel {
    npu: Arc<Npu>,
    launcher: Launcher,
    binary: *mut c_void,
    /// A handle; for the older functions the key that launches name it by.
    function: *mut c_void,
    parameters: Vec<Parameter>,
    /// The key is the address of this, which nobody else has.
    key: Box<u8>,
}

// SAFETY: its pointers are handles that any thread of the chip may use.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a kernel of {:?} with {:?}", self.npu, self.parameters)
    }
}

/// The functions for own kernels that the installed CANN has.
#[derive(Clone, Copy)]
enum Launcher {
    New {
        load: signature::aclrtBinaryLoadFromData,
        find: signature::aclrtBinaryGetFunction,
        unload: signature::aclrtBinaryUnLoad,
        launch: signature::aclrtLaunchKernelWithHostArgs,
    },
    Old {
        load: signature::rtDevBinaryRegister,
        register: signature::rtFunctionRegister,
        unload: signature::rtDevBinaryUnRegister,
        launch: signature::rtKernelLaunch,
    },
}

impl Launcher {
    fn new(cann: &Cann) -> Option<Launcher> {
        let f = cann.functions();
        let new = || {
            Some(Launcher::New {
                load: f.aclrtBinaryLoadFromData?,
                find: f.aclrtBinaryGetFunction?,
                unload: f.aclrtBinaryUnLoad?,
                launch: f.aclrtLaunchKernelWithHostArgs?,
            })
        };
        let old = || {
            Some(Launcher::Old {
                load: f.rtDevBinaryRegister?,
                register: f.rtFunctionRegister?,
                unload: f.rtDevBinaryUnRegister?,
                launch: f.rtKernelLaunch?,
            })
        };
        new().or_else(old)
    }
}

/// The function that launches own kernels.
///
/// # Errors
/// When the installed CANN has none.
pub fn launches(cann: &Cann) -> Result<&'static str> {
    match Launcher::new(cann) {
        Some(Launcher::New { .. }) => Ok("aclrtLaunchKernelWithHostArgs"),
        Some(Launcher::Old { .. }) => Ok("rtKernelLaunch"),
        None => Err(cannot_launch()),
    }
}

fn cannot_launch() -> Error {
    Error::new("the installed CANN has no functions that launch own kernels")
        .help("it needs aclrtBinaryLoadFromData or rtDevBinaryRegister")
}

impl Kernel {
    /// A kernel from the binary that the vendor's compiler made for these cores, with the parameters
    /// that it has.
    ///
    /// # Errors
    /// When the chip does not take it, or the installed CANN cannot launch own kernels.
    pub fn load(
        npu: &Arc<Npu>,
        core: Core,
        binary: &[u8],
        parameters: Vec<Parameter>,
    ) -> Result<Kernel> {
        npu.bind()?;
        let magic = match core {
            Core::Vector => abi::MAGIC_VECTOR,
            Core::Cube => abi::MAGIC_CUBE,
        };
        let name = CString::new(ENTRY).map_err(|e| Error::new(e.to_string()))?;
        let cann = npu.cann();
        let launcher = Launcher::new(cann).ok_or_else(cannot_launch)?;
        let (key, none) = (Box::new(0), ptr::null_mut());
        let npu = Arc::clone(npu);
        let mut kernel = Kernel { npu, launcher, binary: none, function: none, parameters, key };
        let cann = kernel.npu.cann();
        let data = binary.as_ptr().cast();
        match launcher {
            Launcher::New { load, find, .. } => {
                let option =
                    BinaryOption { kind: BinaryOptionKind::Magic, value: [magic, 0, 0, 0] };
                let options = BinaryOptions { options: &option, count: 1 };
                // SAFETY: the binary has these bytes, and is copied; it writes one pointer, which is
                // given back by the drop below.
                let code = unsafe { load(data, binary.len(), &options, &mut kernel.binary) };
                cann.check("aclrtBinaryLoadFromData", code)?;
                // SAFETY: the binary is loaded; it writes one pointer.
                let code = unsafe { find(kernel.binary, Char::of(&name), &mut kernel.function) };
                cann.check("aclrtBinaryGetFunction", code)?;
            }
            Launcher::Old { load, register, .. } => {
                let old = OldBinary { magic, version: 0, data, length: binary.len() as u64 };
                // SAFETY: as above.
                let code = unsafe { load(&old, &mut kernel.binary) };
                cann.check("rtDevBinaryRegister", code)?;
                kernel.function = ptr::from_mut::<u8>(&mut kernel.key).cast();
                let (name, of) = (Char::of(&name), name.as_ptr().cast());
                // SAFETY: the binary is loaded; names are copied; the key is only compared.
                let code = unsafe { register(kernel.binary, kernel.function, name, of, 0) };
                cann.check("rtFunctionRegister", code)?;
            }
        }
        Ok(kernel)
    }

    /// Runs `grid` programs of the kernel in a stream, with these pointers.
    ///
    /// # Errors
    /// When the pointers are not as many as it has, or the launch is refused.
    ///
    /// # Safety
    /// The pointers point to memory of the chip that has what the kernel reads and writes there,
    /// until the stream has passed the launch.
    pub unsafe fn launch(
        &self,
        pointers: &[*mut c_void],
        grid: usize,
        stream: &Stream,
    ) -> Result<()> {
        self.npu.bind()?;
        let mut block = self.arguments(pointers, grid)?;
        let (arguments, bytes) = (block.as_mut_ptr().cast(), block.len());
        let (function, programs, none) = (self.function, grid as u32, ptr::null_mut());
        let cann = self.npu.cann();
        match self.launcher {
            Launcher::New { launch, .. } => {
                // SAFETY: the arguments have these bytes and are copied; what they point to, the
                // caller vouches for.
                let code = unsafe {
                    let (stream, places) = (stream.raw(), ptr::null_mut());
                    launch(function, programs, stream, ptr::null_mut(), arguments, bytes, places, 0)
                };
                cann.check("aclrtLaunchKernelWithHostArgs", code)
            }
            Launcher::Old { launch, .. } => {
                // SAFETY: as above.
                let code = unsafe {
                    launch(function, programs, arguments, bytes as u32, none, stream.raw())
                };
                cann.check("rtKernelLaunch", code)
            }
        }
    }

    /// The bytes of the arguments, in the order of the parameters, each at a multiple of its size.
    fn arguments(&self, pointers: &[*mut c_void], grid: usize) -> Result<Vec<u8>> {
        let wanted = self.parameters.iter().filter(|p| **p == Parameter::Pointer).count();
        if wanted != pointers.len() {
            let given = pointers.len();
            return Err(Error::new(format!("a kernel takes {wanted} pointers, {given} given")));
        }
        let mut pointers = pointers.iter();
        let mut sizes = [grid as u32, 1, 1].into_iter();
        let mut block = Vec::new();
        for parameter in &self.parameters {
            let word = match parameter {
                Parameter::Synchronisation => self.synchronisation()?,
                Parameter::Pointer => pointers.next().map_or(0, |p| *p as u64),
                Parameter::Size => {
                    let size = sizes.next().ok_or("a kernel takes more than three sizes")?;
                    block.extend(size.to_le_bytes());
                    continue;
                }
            };
            block.resize(block.len().next_multiple_of(8), 0);
            block.extend(word.to_le_bytes());
        }
        Ok(block)
    }

    /// The address that cores synchronise at.
    fn synchronisation(&self) -> Result<u64> {
        let cann = self.npu.cann();
        if let Some(get) = cann.functions().aclrtGetHardwareSyncAddr {
            let mut at = ptr::null_mut();
            // SAFETY: it writes one pointer.
            cann.check("aclrtGetHardwareSyncAddr", unsafe { get(&mut at) })?;
            return Ok(at as u64);
        }
        let Some(get) = cann.functions().rtGetC2cCtrlAddr else {
            return Err(Error::new("the installed CANN does not tell where cores synchronise")
                .help("it needs aclrtGetHardwareSyncAddr or rtGetC2cCtrlAddr"));
        };
        let (mut at, mut length) = (0, 0);
        // SAFETY: it writes two numbers.
        cann.check("rtGetC2cCtrlAddr", unsafe { get(&mut at, &mut length) })?;
        Ok(at)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if self.binary.is_null() || self.npu.bind().is_err() {
            return;
        }
        // SAFETY: it was loaded, and launches of it have been waited for.
        unsafe {
            match self.launcher {
                Launcher::New { unload, .. } => unload(self.binary),
                Launcher::Old { unload, .. } => unload(self.binary),
            }
        };
    }
}
