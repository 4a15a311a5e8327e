//! The C types of the vendor's libraries, and how each is spelled in C, so that a compiler can compare
//! all that is declared here with the vendor's headers.

use std::ffi::{CStr, c_char, c_void};

/// A type that C functions take or return.
pub trait CType {
    /// How C spells it.
    fn c() -> String;
}

macro_rules! c_types {
    ($($ty:ty => $name:literal;)*) => {
        $(impl CType for $ty {
            fn c() -> String {
                $name.to_owned()
            }
        })*
    };
}

c_types! {
    i8 => "int8_t";
    i32 => "int32_t";
    i64 => "int64_t";
    u32 => "uint32_t";
    u64 => "uint64_t";
    usize => "size_t";
    c_void => "void";
    Char => "char";
}

impl<T: CType> CType for *const T {
    fn c() -> String {
        format!("const {} *", T::c())
    }
}

impl<T: CType> CType for *mut T {
    fn c() -> String {
        format!("{} *", T::c())
    }
}

/// A character of C, whose sign depends on the machine.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Char(c_char);

impl Char {
    /// The characters of a string, with the zero that ends it.
    pub fn of(text: &CStr) -> *const Char {
        text.as_ptr().cast()
    }

    /// The text that a C function returned, if it returned any.
    ///
    /// # Safety
    /// `text` is null or ends with a zero, and nobody changes it meanwhile.
    pub unsafe fn read(text: *const Char) -> Option<String> {
        // SAFETY: what the caller promises.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text.cast()) })?;
        let text = text.to_string_lossy().trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// What a function returns: 0 is success.
pub type Code = i32;

/// A constant of C and its value here.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Its name in C.
    pub name: &'static str,
    /// Its value here.
    pub value: i64,
    /// Whether it is HCCL's.
    pub hccl: bool,
}

macro_rules! enums {
    ($($(#[$doc:meta])* $name:ident = $c:literal { $($(#[$of:meta])* $variant:ident = $cvariant:ident: $value:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
            pub struct $name(pub i32);

            #[allow(non_upper_case_globals)]
            impl $name {
                $($(#[$of])* pub const $variant: $name = $name($value);)*
            }

            c_types! { $name => $c; }
        )*

        /// Every constant of an enumeration that is used.
        pub const ENUMERATORS: &[Constant] = &[
            $($(Constant { name: stringify!($cvariant), value: $value, hccl: starts_with_hccl($c) },)*)*
        ];
    };
}

const fn starts_with_hccl(name: &str) -> bool {
    name.as_bytes()[0] == b'H'
}

enums! {
    /// Where a copy goes.
    CopyKind = "aclrtMemcpyKind" {
        /// From the host to the device.
        ToDevice = ACL_MEMCPY_HOST_TO_DEVICE: 1,
        /// From the device to the host.
        ToHost = ACL_MEMCPY_DEVICE_TO_HOST: 2,
        /// On the device.
        OnDevice = ACL_MEMCPY_DEVICE_TO_DEVICE: 3,
    }

    /// Which pages memory is made of.
    MallocPolicy = "aclrtMemMallocPolicy" {
        /// Huge pages if there are any.
        HugeFirst = ACL_MEM_MALLOC_HUGE_FIRST: 0,
    }

    /// Which memory is asked about.
    MemoryKind = "aclrtMemAttr" {
        /// The chip's main memory.
        Hbm = ACL_HBM_MEM: 1,
    }

    /// Which package's release is asked for.
    Package = "aclCANNPackageName" {
        /// All of CANN.
        Cann = ACL_PKG_NAME_CANN: 0,
        /// The driver.
        Driver = ACL_PKG_NAME_DRIVER: 7,
    }

    /// Element types of operators.
    DataType = "aclDataType" {
        /// f32
        F32 = ACL_FLOAT: 0,
        /// f16
        F16 = ACL_FLOAT16: 1,
        /// bf16
        BF16 = ACL_BF16: 27,
    }

    /// Layouts of tensors.
    Format = "aclFormat" {
        /// Any number of dimensions, by strides.
        Nd = ACL_FORMAT_ND: 2,
    }

    /// What the option of a kernel's binary is about.
    BinaryOptionKind = "aclrtBinaryLoadOptionType" {
        /// Which cores the binary is for.
        Magic = ACL_RT_BINARY_LOAD_OPT_MAGIC: 2,
    }
}

/// Constants that are macros or variables in C.
pub const CONSTANTS: &[Constant] = &[
    Constant { name: "ACL_EVENT_SYNC", value: EVENT_SYNC as i64, hccl: false },
    Constant { name: "ACL_ERROR_REPEAT_INITIALIZE", value: REPEAT_INITIALIZE as i64, hccl: false },
    Constant { name: "ACL_ERROR_RT_MEMORY_ALLOCATION", value: OUT_OF_MEMORY as i64, hccl: false },
    Constant {
        name: "ACL_RT_BINARY_MAGIC_ELF_VECTOR_CORE",
        value: MAGIC_VECTOR as i64,
        hccl: false,
    },
    Constant { name: "ACL_RT_BINARY_MAGIC_ELF_CUBE_CORE", value: MAGIC_CUBE as i64, hccl: false },
    Constant { name: "ACL_PKG_VERSION_MAX_SIZE", value: VERSION_BYTES as i64, hccl: false },
];

/// Events that others wait for.
pub const EVENT_SYNC: u32 = 1;
/// The runtime was started before, by somebody else in this process.
pub const REPEAT_INITIALIZE: Code = 100_002;
/// The chip's memory is used up.
pub const OUT_OF_MEMORY: Code = 207_001;
/// A binary for vector cores.
pub const MAGIC_VECTOR: u32 = 0x4141_5246;
/// A binary for cube cores.
pub const MAGIC_CUBE: u32 = 0x4149_4343;
const VERSION_BYTES: usize = 128;

/// A struct of C, its size, and the byte that each field begins at.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Its name in C.
    pub name: &'static str,
    /// Its size here.
    pub bytes: usize,
    /// Names in C of fields, and where each begins here.
    pub fields: &'static [(&'static str, usize)],
}

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident = $c:literal { $($(#[$of:meta])* $field:ident = $cfield:literal: $ty:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            pub struct $name {
                $($(#[$of])* pub $field: $ty,)*
            }

            c_types! { $name => $c; }
        )*

        /// Every struct that functions take.
        pub const LAYOUTS: &[Layout] = &[
            $(Layout {
                name: $c,
                bytes: size_of::<$name>(),
                fields: &[$(($cfield, std::mem::offset_of!($name, $field)),)*],
            },)*
        ];
    };
}

structs! {
    /// An option of a kernel's binary.
    BinaryOption = "aclrtBinaryLoadOption" {
        /// What it is about.
        kind = "type": BinaryOptionKind,
        /// Its value: the first word; the others are reserved.
        value = "value": [u32; 4],
    }

    /// Options of a kernel's binary.
    BinaryOptions = "aclrtBinaryLoadOptions" {
        /// The first.
        options = "options": *const BinaryOption,
        /// How many.
        count = "numOpt": usize,
    }

    /// Release of a package.
    PackageVersion = "aclCANNPackageVersion" {
        /// All of it, as text.
        version = "version": [u8; VERSION_BYTES],
        /// Its parts, which are not used.
        parts = "majorVersion": [[u8; 64]; 4],
        /// Nothing.
        reserved = "reserved": [u8; VERSION_BYTES],
    }
}

/// Attributes of a launch, which are not used.
#[derive(Clone, Copy, Debug)]
pub enum LaunchConfig {}

/// Places in a launch's arguments that are filled later, which are not used.
#[derive(Clone, Copy, Debug)]
pub enum PlaceHolder {}

/// A tensor of an operator.
#[derive(Clone, Copy, Debug)]
pub enum Tensor {}

/// A call of an operator that has been prepared.
#[derive(Clone, Copy, Debug)]
pub enum Executor {}

c_types! {
    LaunchConfig => "aclrtLaunchKernelCfg";
    PlaceHolder => "aclrtPlaceHolderInfo";
    Tensor => "aclTensor";
    Executor => "aclOpExecutor";
    OldBinary => "rtDevBinary_t";
}

/// A kernel's binary as the older functions take it. No public header declares it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OldBinary {
    /// Which cores it is for.
    pub magic: u32,
    /// 0
    pub version: u32,
    /// Its bytes.
    pub data: *const c_void,
    /// How many.
    pub length: u64,
}
