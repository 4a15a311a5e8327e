//! Every function of the vendor's libraries that is called: name, library, types, and what is lost
//! without it. The fields of [`Functions`] are found by these names when the libraries are opened.
#![allow(non_snake_case)]

use super::abi::{
    BinaryOptions, CType, Char, Code, CopyKind, DataType, Format, LaunchConfig, MallocPolicy,
    MemoryKind, OldBinary, Package, PackageVersion, PlaceHolder, Tensor,
};
use std::ffi::c_void;
use std::fmt;
use std::mem::transmute;

/// A library of the vendor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// `libascendcl`: devices, memory, streams, launches.
    AscendCl,
    /// `libruntime`: what launches were called before.
    Runtime,
    /// `libnnopbase`: tensors of operators.
    NnOpBase,
    /// `libopapi` and its parts: operators.
    OpApi,
}

impl Library {
    /// Every library, in the order of opening.
    pub const ALL: [Library; 4] =
        [Library::AscendCl, Library::Runtime, Library::NnOpBase, Library::OpApi];

    /// Its name without `lib` and its ending.
    pub fn name(self) -> &'static str {
        match self {
            Library::AscendCl => "ascendcl",
            Library::Runtime => "runtime",
            Library::NnOpBase => "nnopbase",
            Library::OpApi => "opapi",
        }
    }
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lib{}", self.name())
    }
}

/// A function that is called, for reports and for the comparison with the vendor's headers.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub library: Library,
    /// What is lost without it; nothing works without one that has no such line.
    pub lost: Option<&'static str>,
    /// Whether the vendor's public headers declare it. Others are known from documentation only.
    pub public: bool,
    result: fn() -> String,
    parameters: fn() -> Vec<String>,
}

impl Declaration {
    /// How C spells its result and its parameters.
    pub fn types(&self) -> (String, Vec<String>) {
        ((self.result)(), (self.parameters)())
    }
}

/// Finds the address of a function.
pub(crate) type Find<'a> = &'a dyn Fn(&'static Declaration) -> Option<*const c_void>;

macro_rules! functions {
    (
        required { $($(#[$doc:meta])* $library:ident $name:ident($($p:ty),*) -> $r:ty;)* }
        optional { $($(#[$odoc:meta])* $olibrary:ident $oname:ident($($op:ty),*) -> $or:ty, $public:literal, $lost:literal;)* }
    ) => {
        /// The types of the functions, by their names.
        #[allow(non_camel_case_types)]
        pub(crate) mod signature {
            use super::*;
            $(pub type $name = unsafe extern "C" fn($($p),*) -> $r;)*
            $(pub type $oname = unsafe extern "C" fn($($op),*) -> $or;)*
        }

        /// The functions that were found.
        pub(crate) struct Functions {
            $($(#[$doc])* pub $name: signature::$name,)*
            $($(#[$odoc])* pub $oname: Option<signature::$oname>,)*
        }

        /// Every function that is called but for operators, which are found by their names.
        pub const DECLARATIONS: &[Declaration] = &[
            $(Declaration {
                name: stringify!($name),
                library: Library::$library,
                lost: None,
                public: true,
                result: <$r as CType>::c,
                parameters: || vec![$(<$p as CType>::c()),*],
            },)*
            $(Declaration {
                name: stringify!($oname),
                library: Library::$olibrary,
                lost: Some($lost),
                public: $public,
                result: <$or as CType>::c,
                parameters: || vec![$(<$op as CType>::c()),*],
            },)*
        ];

        impl Functions {
            /// All functions by their addresses, and what was not found.
            ///
            /// # Errors
            /// With the declarations that were not found, if nothing works without one of them.
            ///
            /// # Safety
            /// `find` returns addresses of functions of these types.
            pub(crate) unsafe fn find(
                find: Find<'_>,
            ) -> Result<(Functions, Vec<&'static Declaration>), Vec<&'static Declaration>> {
                let mut missing = Vec::new();
                let mut declarations = DECLARATIONS.iter();
                let mut next = || {
                    let declaration = declarations.next()?;
                    let found = find(declaration);
                    if found.is_none() {
                        missing.push(declaration);
                    }
                    found
                };
                // In the order of the declarations.
                $(let $name = next();)*
                $(let $oname = next();)*
                if missing.iter().any(|d| d.lost.is_none()) {
                    return Err(missing);
                }
                let functions = Functions {
                    $($name: match $name {
                        // SAFETY: the caller vouches for the type.
                        Some(found) => unsafe {
                            transmute::<*const c_void, signature::$name>(found)
                        },
                        None => return Err(missing),
                    },)*
                    $($oname: match $oname {
                        // SAFETY: as above.
                        Some(found) => Some(unsafe {
                            transmute::<*const c_void, signature::$oname>(found)
                        }),
                        None => None,
                    },)*
                };
                Ok((functions, missing))
            }
        }
    };
}

const _: () = assert!(size_of::<Option<extern "C" fn()>>() == size_of::<*const c_void>());

type Pointer = *mut c_void;
type Out<T> = *mut T;

functions! {
    required {
        /// Starts the runtime: configuration, or null.
        AscendCl aclInit(*const Char) -> Code;
        /// Ends the runtime.
        AscendCl aclFinalize() -> Code;
        /// What the last call of this thread that failed had to say.
        AscendCl aclGetRecentErrMsg() -> *const Char;
        /// The interface's version: major, minor, patch.
        AscendCl aclrtGetVersion(Out<i32>, Out<i32>, Out<i32>) -> Code;
        /// The chip's name.
        AscendCl aclrtGetSocName() -> *const Char;
        /// How many chips there are.
        AscendCl aclrtGetDeviceCount(Out<u32>) -> Code;
        /// Opens a chip.
        AscendCl aclrtSetDevice(i32) -> Code;
        /// Closes a chip.
        AscendCl aclrtResetDevice(i32) -> Code;
        /// The context of this thread.
        AscendCl aclrtGetCurrentContext(Out<Pointer>) -> Code;
        /// Makes a context that of this thread.
        AscendCl aclrtSetCurrentContext(Pointer) -> Code;
        /// Free and total bytes.
        AscendCl aclrtGetMemInfo(MemoryKind, Out<usize>, Out<usize>) -> Code;
        /// A new stream.
        AscendCl aclrtCreateStream(Out<Pointer>) -> Code;
        /// Ends a stream.
        AscendCl aclrtDestroyStream(Pointer) -> Code;
        /// Waits until a stream is done.
        AscendCl aclrtSynchronizeStream(Pointer) -> Code;
        /// A new event, with flags.
        AscendCl aclrtCreateEventWithFlag(Out<Pointer>, u32) -> Code;
        /// Ends an event.
        AscendCl aclrtDestroyEvent(Pointer) -> Code;
        /// Has an event happen when a stream comes to it.
        AscendCl aclrtRecordEvent(Pointer, Pointer) -> Code;
        /// Lets a stream wait for an event.
        AscendCl aclrtStreamWaitEvent(Pointer, Pointer) -> Code;
        /// Waits for an event.
        AscendCl aclrtSynchronizeEvent(Pointer) -> Code;
        /// Memory of the chip: where to, bytes, pages.
        AscendCl aclrtMalloc(Out<Pointer>, usize, MallocPolicy) -> Code;
        /// Gives memory of the chip back.
        AscendCl aclrtFree(Pointer) -> Code;
        /// Memory of the host that the chip can reach: where to, bytes.
        AscendCl aclrtMallocHost(Out<Pointer>, usize) -> Code;
        /// Gives such memory back.
        AscendCl aclrtFreeHost(Pointer) -> Code;
        /// Fills memory in a stream: where, room, value, bytes.
        AscendCl aclrtMemsetAsync(Pointer, usize, i32, usize, Pointer) -> Code;
        /// Copies in a stream: to, room, from, bytes, direction.
        AscendCl aclrtMemcpyAsync(Pointer, usize, *const c_void, usize, CopyKind, Pointer) -> Code;
    }
    optional {
        /// The release of a package.
        AscendCl aclsysGetCANNVersion(Package, Out<PackageVersion>) -> Code, true,
            "reports lack the release of CANN";
        /// A kernel's binary: bytes, length, options, where to.
        AscendCl aclrtBinaryLoadFromData(*const c_void, usize, *const BinaryOptions, Out<Pointer>) -> Code, true,
            "own kernels are launched by the older functions of libruntime";
        /// A kernel in a binary, by its name.
        AscendCl aclrtBinaryGetFunction(Pointer, *const Char, Out<Pointer>) -> Code, true,
            "own kernels are launched by the older functions of libruntime";
        /// Gives a binary back.
        AscendCl aclrtBinaryUnLoad(Pointer) -> Code, true,
            "own kernels are launched by the older functions of libruntime";
        /// A launch: kernel, programs, stream, attributes, arguments and their bytes, place holders.
        AscendCl aclrtLaunchKernelWithHostArgs(Pointer, u32, Pointer, *mut LaunchConfig, Pointer, usize, *mut PlaceHolder, usize) -> Code, true,
            "own kernels are launched by the older functions of libruntime";
        /// Where cores synchronise.
        AscendCl aclrtGetHardwareSyncAddr(Out<Pointer>) -> Code, true,
            "the address for synchronising cores comes from libruntime";
        /// A kernel's binary, and where to.
        Runtime rtDevBinaryRegister(*const OldBinary, Out<Pointer>) -> Code, false,
            "own kernels need the newer functions of libascendcl";
        /// Gives a binary back.
        Runtime rtDevBinaryUnRegister(Pointer) -> Code, false,
            "own kernels need the newer functions of libascendcl";
        /// A kernel in a binary: binary, key for launches, name, name, mode.
        Runtime rtFunctionRegister(Pointer, *const c_void, *const Char, *const c_void, u32) -> Code, false,
            "own kernels need the newer functions of libascendcl";
        /// A launch: key, programs, arguments and their bytes, null, stream.
        Runtime rtKernelLaunch(*const c_void, u32, Pointer, u32, Pointer, Pointer) -> Code, false,
            "own kernels need the newer functions of libascendcl";
        /// Where cores synchronise, and a length.
        Runtime rtGetC2cCtrlAddr(Out<u64>, Out<u32>) -> Code, false,
            "the address for synchronising cores comes from libascendcl";
        /// A tensor: sizes and how many, dtype, strides, offset, layout, sizes of the memory and how
        /// many, memory.
        NnOpBase aclCreateTensor(*const i64, u64, DataType, *const i64, i64, Format, *const i64, u64, Pointer) -> *mut Tensor, false,
            "the vendor's operators are not used";
        /// Gives a tensor back.
        NnOpBase aclDestroyTensor(*const Tensor) -> Code, false,
            "the vendor's operators are not used";
    }
}
