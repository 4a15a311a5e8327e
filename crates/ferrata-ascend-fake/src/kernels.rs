//! Functions for own kernels: binaries are the text that the vendor's last step would get, and run on
//! the simulator of the cores.

use crate::devices::put;
use crate::state::{BAD_HANDLE, BAD_KERNEL, Binary, INVALID, Outcome, State, on_device, wrong};
use ferrata_ascend::Target;
use ferrata_ascend::runtime::abi::{
    BinaryOptionKind, BinaryOptions, Char, Code, LaunchConfig, MAGIC_CUBE, MAGIC_VECTOR, OldBinary,
    PlaceHolder,
};
use ferrata_ascend::sim::{Parameter, Program, parameters};
use std::ffi::c_void;

type Pointer = *mut c_void;

/// Where cores synchronise.
const SYNCHRONISATION: u64 = 0x00C2_C000;

fn load(s: &mut State, data: &[u8], magic: u32, old: bool) -> Outcome<u64> {
    let Ok(text) = std::str::from_utf8(data) else { return wrong(INVALID, "no binary") };
    let core = |magic| match magic {
        MAGIC_VECTOR => Some("#hivm.func_core_type<AIV>"),
        MAGIC_CUBE => Some("#hivm.func_core_type<AIC>"),
        _ => None,
    };
    let entry = text.lines().find(|l| l.contains("hacc.entry")).unwrap_or_default();
    if core(magic).is_none_or(|core| !entry.contains(core)) {
        return wrong(INVALID, format!("the binary is not for the cores of {magic:#x}"));
    }
    let handle = s.handle();
    s.binaries.insert(handle, Binary { text: text.to_owned(), old });
    Ok(handle)
}

fn function(s: &mut State, binary: u64, key: u64, name: Option<String>) -> Outcome {
    let name = name.unwrap_or_default();
    let Some(found) = s.binaries.get(&binary) else { return wrong(BAD_HANDLE, "no binary") };
    if !found.text.contains(&format!("func.func @{name}(")) {
        return wrong(507_027, format!("no kernel `{name}`"));
    }
    s.functions.insert(key, (binary, name));
    Ok(())
}

fn unload(s: &mut State, binary: u64, old: bool) -> Outcome {
    let found = s.remove("a binary", binary, |s| s.binaries.remove(&binary))?;
    s.functions.retain(|_, (of, _)| *of != binary);
    match found.old == old {
        true => Ok(()),
        false => wrong(BAD_HANDLE, "a binary of the other functions"),
    }
}

fn launch(s: &mut State, key: u64, grid: u32, block: &[u8], stream: Pointer, old: bool) -> Outcome {
    let Some((binary, _)) = s.functions.get(&key) else { return wrong(BAD_HANDLE, "no kernel") };
    let binary = *binary;
    let Some(found) = s.binaries.get(&binary).filter(|b| b.old == old) else {
        return wrong(BAD_HANDLE, "no binary");
    };
    if grid == 0 {
        return wrong(INVALID, "a grid of 0");
    }
    let listed = parameters(&found.text).or_else(|e| wrong(INVALID, e.to_string()))?;
    let pointers = pointers(&listed, block, grid)?;
    // Addresses must be right at the launch, and still be when the kernel runs.
    for &at in &pointers {
        s.bytes(at, 1)?;
    }
    let text = found_text(s, binary)?;
    let task = move |s: &mut State| {
        if !s.binaries.contains_key(&binary) {
            s.find("a kernel was unloaded before it had run");
        }
        let program = Program::parse(&text).or_else(|e| wrong(BAD_KERNEL, e.to_string()))?;
        let target = Target::find("Ascend910B3").or_else(|e| wrong(BAD_KERNEL, e.to_string()))?;
        let mut taken = s.take(&pointers)?;
        let places = taken.places.clone();
        let done = program.run(&target, &mut taken.blocks, &places, grid as usize);
        s.put(taken);
        done.or_else(|e| wrong(BAD_KERNEL, e.to_string()))
    };
    s.push(stream as u64, "a kernel", Box::new(task))
}

fn found_text(s: &State, binary: u64) -> Outcome<String> {
    match s.binaries.get(&binary) {
        Some(found) => Ok(found.text.clone()),
        None => wrong(BAD_HANDLE, "no binary"),
    }
}

/// The pointers of an argument block; everything else in it must be as it has to.
fn pointers(listed: &[Parameter], block: &[u8], grid: u32) -> Outcome<Vec<u64>> {
    let (mut at, mut found, mut sizes) = (0, Vec::new(), vec![grid, 1, 1].into_iter());
    let word = |at: usize, bytes: usize| match block.get(at..at + bytes) {
        Some(bytes) => {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            Ok(u64::from_le_bytes(word))
        }
        None => wrong(INVALID, "the argument block is too short"),
    };
    for parameter in listed {
        match parameter {
            Parameter::Size => {
                let want = sizes.next().unwrap_or(0);
                if word(at, 4)? != u64::from(want) {
                    return wrong(INVALID, format!("byte {at} of the arguments is not {want}"));
                }
                at += 4;
            }
            Parameter::Pointer | Parameter::Synchronisation => {
                at = usize::next_multiple_of(at, 8);
                let word = word(at, 8)?;
                at += 8;
                if *parameter == Parameter::Pointer {
                    found.push(word);
                } else if word != SYNCHRONISATION {
                    return wrong(INVALID, "the address for synchronising is missing");
                }
            }
        }
    }
    match at == block.len() {
        true => Ok(found),
        false => wrong(INVALID, format!("{} bytes of arguments, {at} wanted", block.len())),
    }
}

/// Bytes that a caller gave.
///
/// # Safety
/// `at` is null or has so many bytes.
unsafe fn given<'a>(at: *const c_void, bytes: usize) -> Outcome<&'a [u8]> {
    match at.is_null() {
        true => wrong(INVALID, "null"),
        // SAFETY: what the caller promises.
        false => Ok(unsafe { std::slice::from_raw_parts(at.cast(), bytes) }),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtBinaryLoadFromData(
    data: *const c_void,
    bytes: usize,
    options: *const BinaryOptions,
    to: *mut Pointer,
) -> Code {
    // SAFETY: the caller gives data and options that are what they say.
    on_device("aclrtBinaryLoadFromData", |s| unsafe {
        let data = given(data, bytes)?;
        let Some(options) = options.as_ref() else { return wrong(INVALID, "no options") };
        let options = std::slice::from_raw_parts(options.options, options.count);
        let magic = options.iter().find(|o| o.kind == BinaryOptionKind::Magic);
        let handle = load(s, data, magic.map_or(0, |o| o.value[0]), false)?;
        put(to, handle as Pointer)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtBinaryGetFunction(
    binary: Pointer,
    name: *const Char,
    to: *mut Pointer,
) -> Code {
    on_device("aclrtBinaryGetFunction", |s| {
        let key = s.handle();
        // SAFETY: the caller gives a name and room for a pointer.
        unsafe {
            function(s, binary as u64, key, Char::read(name))?;
            put(to, key as Pointer)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtBinaryUnLoad(binary: Pointer) -> Code {
    on_device("aclrtBinaryUnLoad", |s| unload(s, binary as u64, false))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtLaunchKernelWithHostArgs(
    function: Pointer,
    grid: u32,
    stream: Pointer,
    _: *mut LaunchConfig,
    arguments: Pointer,
    bytes: usize,
    _: *mut PlaceHolder,
    _: usize,
) -> Code {
    on_device("aclrtLaunchKernelWithHostArgs", |s| {
        // SAFETY: the caller gives so many bytes.
        let block = unsafe { given(arguments, bytes)? };
        launch(s, function as u64, grid, block, stream, false)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetHardwareSyncAddr(to: *mut Pointer) -> Code {
    // SAFETY: the caller gives room for a pointer.
    on_device("aclrtGetHardwareSyncAddr", |_| unsafe { put(to, SYNCHRONISATION as Pointer) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rtDevBinaryRegister(binary: *const OldBinary, to: *mut Pointer) -> Code {
    // SAFETY: the caller gives a binary that is what it says.
    on_device("rtDevBinaryRegister", |s| unsafe {
        let Some(binary) = binary.as_ref() else { return wrong(INVALID, "null") };
        let data = given(binary.data, binary.length as usize)?;
        let handle = load(s, data, binary.magic, true)?;
        put(to, handle as Pointer)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rtDevBinaryUnRegister(binary: Pointer) -> Code {
    on_device("rtDevBinaryUnRegister", |s| unload(s, binary as u64, true))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rtFunctionRegister(
    binary: Pointer,
    key: *const c_void,
    name: *const Char,
    _: *const c_void,
    _: u32,
) -> Code {
    // SAFETY: the caller gives a name.
    on_device("rtFunctionRegister", |s| unsafe {
        function(s, binary as u64, key as u64, Char::read(name))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rtKernelLaunch(
    key: *const c_void,
    grid: u32,
    arguments: Pointer,
    bytes: u32,
    _: Pointer,
    stream: Pointer,
) -> Code {
    on_device("rtKernelLaunch", |s| {
        // SAFETY: the caller gives so many bytes.
        let block = unsafe { given(arguments, bytes as usize)? };
        launch(s, key as u64, grid, block, stream, true)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rtGetC2cCtrlAddr(at: *mut u64, length: *mut u32) -> Code {
    // SAFETY: the caller gives two numbers.
    on_device("rtGetC2cCtrlAddr", |_| unsafe {
        put(at, SYNCHRONISATION)?;
        put(length, 0)
    })
}
