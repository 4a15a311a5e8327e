//! Functions for devices, streams, events, memory and copies.

use crate::state::{
    BAD_HANDLE, CAPACITY, CONTEXT, INVALID, Outcome, State, call, lock, on_device, wrong,
};
use ferrata_ascend::runtime::abi::{
    Char, Code, CopyKind, MallocPolicy, MemoryKind, Package, PackageVersion,
};
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;

/// The handle of the only device's context.
const THE_CONTEXT: u64 = 0x7777_0000;

type Pointer = *mut c_void;

/// Writes a result.
///
/// # Safety
/// `to` is null or can be written to.
pub(crate) unsafe fn put<T>(to: *mut T, value: T) -> Outcome {
    if to.is_null() {
        return wrong(INVALID, "null");
    }
    // SAFETY: what the caller promises.
    unsafe { to.write(value) };
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclInit(_: *const Char) -> Code {
    call("aclInit", |s| {
        if std::mem::replace(&mut s.started, true) {
            return wrong(100_002, "started before");
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclFinalize() -> Code {
    call("aclFinalize", |s| {
        if !std::mem::take(&mut s.started) {
            return wrong(100_001, "not started");
        }
        s.guards();
        let leaks = s.leaks();
        s.findings.extend(leaks);
        // For whoever runs a program that uses the imitation.
        if let Some(file) = std::env::var_os("FERRATA_FAKE_FINDINGS") {
            std::fs::write(file, s.findings.join("\n"))
                .or_else(|e| wrong(100_004, e.to_string()))?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclGetRecentErrMsg() -> *const Char {
    let state = lock();
    match state.message.is_empty() {
        true => std::ptr::null(),
        false => Char::of(&state.message),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetVersion(major: *mut i32, minor: *mut i32, patch: *mut i32) -> Code {
    // SAFETY: the caller gives three numbers.
    call("aclrtGetVersion", |_| unsafe {
        put(major, 1)?;
        put(minor, 0)?;
        put(patch, 0)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclsysGetCANNVersion(package: Package, to: *mut PackageVersion) -> Code {
    call("aclsysGetCANNVersion", |_| {
        if package != Package::Cann {
            return wrong(100_003, "no such package");
        }
        let mut version =
            PackageVersion { version: [0; 128], parts: [[0; 64]; 4], reserved: [0; 128] };
        version.version[..4].copy_from_slice(b"fake");
        // SAFETY: the caller gives room for it.
        unsafe { put(to, version) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetSocName() -> *const Char {
    Char::of(c"Ascend910B3")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetDeviceCount(count: *mut u32) -> Code {
    // SAFETY: the caller gives a number.
    call("aclrtGetDeviceCount", |_| unsafe { put(count, 2) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtSetDevice(device: i32) -> Code {
    call("aclrtSetDevice", |s| {
        if !s.started {
            return wrong(100_001, "not started");
        }
        if !(0..2).contains(&device) {
            return wrong(107_001, "no such device");
        }
        s.devices += 1;
        CONTEXT.set(true);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtResetDevice(device: i32) -> Code {
    call("aclrtResetDevice", |s| {
        if s.devices <= 0 || !(0..2).contains(&device) {
            return wrong(107_001, "not open");
        }
        s.devices -= 1;
        CONTEXT.set(s.devices > 0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetCurrentContext(to: *mut Pointer) -> Code {
    // SAFETY: the caller gives room for a pointer.
    on_device("aclrtGetCurrentContext", |_| unsafe { put(to, THE_CONTEXT as Pointer) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtSetCurrentContext(context: Pointer) -> Code {
    call("aclrtSetCurrentContext", |s| {
        if context as u64 != THE_CONTEXT || s.devices <= 0 {
            return wrong(BAD_HANDLE, "no context");
        }
        CONTEXT.set(true);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtGetMemInfo(_: MemoryKind, free: *mut usize, total: *mut usize) -> Code {
    // SAFETY: the caller gives two numbers.
    on_device("aclrtGetMemInfo", |s| unsafe {
        put(free, CAPACITY - s.taken())?;
        put(total, CAPACITY)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtCreateStream(to: *mut Pointer) -> Code {
    on_device("aclrtCreateStream", |s| {
        let handle = s.new_stream();
        // SAFETY: the caller gives room for a pointer.
        unsafe { put(to, handle as Pointer) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtDestroyStream(stream: Pointer) -> Code {
    on_device("aclrtDestroyStream", |s| s.end_stream(stream as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtSynchronizeStream(stream: Pointer) -> Code {
    on_device("aclrtSynchronizeStream", |s| s.synchronise(stream as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtCreateEventWithFlag(to: *mut Pointer, _: u32) -> Code {
    on_device("aclrtCreateEventWithFlag", |s| {
        let handle = s.new_event();
        // SAFETY: the caller gives room for a pointer.
        unsafe { put(to, handle as Pointer) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtDestroyEvent(event: Pointer) -> Code {
    on_device("aclrtDestroyEvent", |s| s.end_event(event as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtRecordEvent(event: Pointer, stream: Pointer) -> Code {
    on_device("aclrtRecordEvent", |s| s.record(event as u64, stream as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtStreamWaitEvent(stream: Pointer, event: Pointer) -> Code {
    on_device("aclrtStreamWaitEvent", |s| s.wait_event(stream as u64, event as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtSynchronizeEvent(event: Pointer) -> Code {
    on_device("aclrtSynchronizeEvent", |s| s.synchronise_event(event as u64))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtMalloc(to: *mut Pointer, bytes: usize, _: MallocPolicy) -> Code {
    on_device("aclrtMalloc", |s| {
        let at = s.allocate(bytes)?;
        // SAFETY: the caller gives room for a pointer.
        unsafe { put(to, at as Pointer) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtFree(at: Pointer) -> Code {
    on_device("aclrtFree", |s| s.free(at as u64))
}

/// Memory of the host that the chip reaches begins at a page.
fn pages(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(1), 4096).ok()
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtMallocHost(to: *mut Pointer, bytes: usize) -> Code {
    on_device("aclrtMallocHost", |s| {
        let Some(layout) = pages(bytes) else { return wrong(INVALID, "too many bytes") };
        // SAFETY: the layout has a size.
        let at = unsafe { alloc(layout) };
        if at.is_null() {
            return wrong(200_000, "no memory");
        }
        s.pinned.insert(at as u64, bytes);
        // SAFETY: the caller gives room for a pointer.
        unsafe { put(to, at.cast()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtFreeHost(at: Pointer) -> Code {
    on_device("aclrtFreeHost", |s| {
        let address = at as u64;
        let bytes = s.remove("memory of the host", address, |s| s.pinned.remove(&address))?;
        if let Some(layout) = pages(bytes) {
            // SAFETY: it was given with this layout, and is not freed twice.
            unsafe { dealloc(at.cast(), layout) };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtMemsetAsync(
    at: Pointer,
    room: usize,
    value: i32,
    bytes: usize,
    stream: Pointer,
) -> Code {
    on_device("aclrtMemsetAsync", |s| {
        let at = at as u64;
        s.bytes(at, room)?;
        if bytes > room {
            return wrong(INVALID, format!("{bytes} bytes into {room}"));
        }
        let task = move |s: &mut State| {
            s.bytes(at, bytes)?.fill(value as u8);
            Ok(())
        };
        s.push(stream as u64, "aclrtMemsetAsync", Box::new(task))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn aclrtMemcpyAsync(
    to: Pointer,
    room: usize,
    from: *const c_void,
    bytes: usize,
    kind: CopyKind,
    stream: Pointer,
) -> Code {
    on_device("aclrtMemcpyAsync", |s| {
        if bytes > room || bytes == 0 {
            return wrong(INVALID, format!("{bytes} bytes into {room}"));
        }
        let (to, from) = (to as u64, from as u64);
        // What is wrong with the addresses is said at once, and looked at again when it runs.
        check(s, to, from, bytes, kind)?;
        let task = move |s: &mut State| {
            check(s, to, from, bytes, kind)?;
            match kind {
                CopyKind::ToDevice => {
                    // SAFETY: the memory of the host is alive and has these bytes.
                    let data = unsafe { std::slice::from_raw_parts(from as *const u8, bytes) };
                    s.bytes(to, bytes)?.copy_from_slice(data);
                }
                CopyKind::ToHost => {
                    let data = s.bytes(from, bytes)?;
                    // SAFETY: as above.
                    unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to as *mut u8, bytes) };
                }
                _ => {
                    let data = s.bytes(from, bytes)?.to_vec();
                    s.bytes(to, bytes)?.copy_from_slice(&data);
                }
            }
            Ok(())
        };
        s.push(stream as u64, "aclrtMemcpyAsync", Box::new(task))
    })
}

fn check(s: &mut State, to: u64, from: u64, bytes: usize, kind: CopyKind) -> Outcome {
    let host = match kind {
        CopyKind::ToDevice => {
            s.bytes(to, bytes)?;
            from
        }
        CopyKind::ToHost => {
            s.bytes(from, bytes)?;
            to
        }
        CopyKind::OnDevice => {
            s.bytes(from, bytes)?;
            return s.bytes(to, bytes).map(drop);
        }
        _ => return wrong(INVALID, "no such kind of copy"),
    };
    if s.reaches(host as *const c_void, bytes) {
        return Ok(());
    }
    s.find("an asynchronous copy uses memory of the host that the chip does not reach");
    wrong(INVALID, "memory of the host that the chip does not reach")
}
