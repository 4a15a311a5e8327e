//! What the imitation finds when its functions are used as they must not be.
#![allow(unsafe_code)]

use ferrata_ascend_fake::Fake;
use libloading::{Library, Symbol};
use std::ffi::c_void;
use std::ptr;

type Pointer = *mut c_void;
type Make = unsafe extern "C" fn(*mut Pointer) -> i32;
type Use = unsafe extern "C" fn(Pointer) -> i32;
type Two = unsafe extern "C" fn(Pointer, Pointer) -> i32;
type Copy = unsafe extern "C" fn(Pointer, usize, *const c_void, usize, i32, Pointer) -> i32;

const TO_DEVICE: i32 = 1;
const TO_HOST: i32 = 2;

/// The functions of one copy, by their names.
struct Raw {
    fake: Fake,
    library: Library,
}

impl Raw {
    /// A copy whose chip is open.
    fn open() -> Raw {
        let fake = Fake::new().unwrap();
        // SAFETY: opening it runs nothing but Rust's own start.
        let library = unsafe { Library::new(fake.folder().join("libascendcl.so")) }.unwrap();
        let raw = Raw { fake, library };
        // SAFETY: the functions have these types.
        unsafe {
            let set = raw.get::<unsafe extern "C" fn(i32) -> i32>("aclrtSetDevice");
            assert_eq!(set(0), 100_001, "before the start");
            assert_eq!(raw.get::<Use>("aclInit")(ptr::null_mut()), 0);
            assert_eq!(set(0), 0);
        }
        raw
    }

    /// # Safety
    /// The function has this type.
    unsafe fn get<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: what the caller promises.
        unsafe { self.library.get(name.as_bytes()) }.unwrap()
    }

    fn make(&self, name: &str) -> Pointer {
        let mut made = ptr::null_mut();
        // SAFETY: the function has this type.
        assert_eq!(unsafe { self.get::<Make>(name)(&mut made) }, 0);
        made
    }

    fn one(&self, name: &str, what: Pointer) -> i32 {
        // SAFETY: the function has this type.
        unsafe { self.get::<Use>(name)(what) }
    }

    fn two(&self, name: &str, first: Pointer, second: Pointer) -> i32 {
        // SAFETY: the function has this type.
        unsafe { self.get::<Two>(name)(first, second) }
    }

    fn memory(&self, bytes: usize) -> Pointer {
        let mut at = ptr::null_mut();
        // SAFETY: the function has this type.
        let code = unsafe {
            let malloc =
                self.get::<unsafe extern "C" fn(*mut Pointer, usize, i32) -> i32>("aclrtMalloc");
            malloc(&mut at, bytes, 0)
        };
        assert_eq!(code, 0);
        at
    }

    fn pinned(&self, bytes: usize) -> &'static mut [u8] {
        let mut at = ptr::null_mut();
        // SAFETY: the function has this type, and gives so many bytes.
        unsafe {
            let malloc =
                self.get::<unsafe extern "C" fn(*mut Pointer, usize) -> i32>("aclrtMallocHost");
            assert_eq!(malloc(&mut at, bytes), 0);
            ptr::write_bytes(at.cast::<u8>(), 0, bytes);
            std::slice::from_raw_parts_mut(at.cast(), bytes)
        }
    }

    fn copy(
        &self,
        to: Pointer,
        from: *const c_void,
        bytes: usize,
        kind: i32,
        stream: Pointer,
    ) -> i32 {
        // SAFETY: the function has this type.
        unsafe { self.get::<Copy>("aclrtMemcpyAsync")(to, bytes, from, bytes, kind, stream) }
    }

    /// What was found at the end.
    fn end(self) -> Vec<String> {
        // SAFETY: the function has this type.
        unsafe { self.get::<unsafe extern "C" fn() -> i32>("aclFinalize")() };
        self.fake.findings()
    }
}

#[test]
fn nothing_runs_before_somebody_waits() {
    let raw = Raw::open();
    let (stream, other) = (raw.make("aclrtCreateStream"), raw.make("aclrtCreateStream"));
    let (at, data, back) = (raw.memory(4), raw.pinned(4), raw.pinned(4));
    data.fill(7);
    assert_eq!(raw.copy(at, data.as_ptr().cast(), 4, TO_DEVICE, stream), 0);
    assert_eq!(raw.copy(back.as_mut_ptr().cast(), at, 4, TO_HOST, stream), 0);
    assert_eq!(back, [0; 4]);
    // Without a wait another stream reads what lay there before.
    assert_eq!(raw.copy(back.as_mut_ptr().cast(), at, 4, TO_HOST, other), 0);
    assert_eq!(raw.one("aclrtSynchronizeStream", other), 0);
    assert_eq!(back, [0xA5; 4]);
    // With one it waits for as much as is needed.
    let mut event = ptr::null_mut();
    // SAFETY: the function has this type.
    let code = unsafe {
        let make =
            raw.get::<unsafe extern "C" fn(*mut Pointer, u32) -> i32>("aclrtCreateEventWithFlag");
        make(&mut event, 1)
    };
    assert_eq!(code, 0);
    assert_eq!(raw.two("aclrtRecordEvent", event, stream), 0);
    assert_eq!(raw.two("aclrtStreamWaitEvent", other, event), 0);
    assert_eq!(raw.copy(back.as_mut_ptr().cast(), at, 4, TO_HOST, other), 0);
    assert_eq!(raw.one("aclrtSynchronizeStream", other), 0);
    assert_eq!(back, [7; 4]);
}

#[test]
fn what_is_written_over_before_a_copy_has_run_is_copied_wrong() {
    let raw = Raw::open();
    let stream = raw.make("aclrtCreateStream");
    let (at, data, back) = (raw.memory(4), raw.pinned(4), raw.pinned(4));
    data.fill(7);
    assert_eq!(raw.copy(at, data.as_ptr().cast(), 4, TO_DEVICE, stream), 0);
    data.fill(9);
    assert_eq!(raw.copy(back.as_mut_ptr().cast(), at, 4, TO_HOST, stream), 0);
    assert_eq!(raw.one("aclrtSynchronizeStream", stream), 0);
    assert_eq!(back, [9; 4]);
}

#[test]
fn memory_of_the_host_that_the_chip_does_not_reach() {
    let raw = Raw::open();
    let stream = raw.make("aclrtCreateStream");
    let (at, data) = (raw.memory(4), [1_u8; 4]);
    assert_ne!(raw.copy(at, data.as_ptr().cast(), 4, TO_DEVICE, stream), 0);
    let found = raw.end();
    assert!(found[0].contains("does not reach"), "{found:?}");
}

#[test]
fn memory_that_is_freed_too_early_or_twice() {
    let raw = Raw::open();
    let stream = raw.make("aclrtCreateStream");
    let (at, data) = (raw.memory(4), raw.pinned(4));
    assert_eq!(raw.copy(at, data.as_ptr().cast(), 4, TO_DEVICE, stream), 0);
    assert_eq!(raw.one("aclrtFree", at), 0);
    assert_ne!(raw.one("aclrtSynchronizeStream", stream), 0);
    assert_ne!(raw.one("aclrtFree", at), 0);
    let found = raw.end();
    assert!(found[0].contains("freed before"), "{found:?}");
}

#[test]
fn copies_that_leave_their_memory() {
    let raw = Raw::open();
    let stream = raw.make("aclrtCreateStream");
    let (at, data) = (raw.memory(4), raw.pinned(8));
    assert_ne!(raw.copy(at, data.as_ptr().cast(), 5, TO_DEVICE, stream), 0);
    assert_ne!(raw.copy((at as u64 + 1) as Pointer, data.as_ptr().cast(), 4, TO_DEVICE, stream), 0);
    assert_eq!(raw.copy(at, data.as_ptr().cast(), 4, TO_DEVICE, stream), 0);
}

#[test]
fn what_is_left_at_the_end() {
    let raw = Raw::open();
    raw.make("aclrtCreateStream");
    raw.memory(4);
    raw.pinned(4);
    let found = raw.end();
    for what in ["stream", "chip's memory", "host's memory", "device"] {
        assert!(found.iter().any(|f| f.contains(what)), "{what}: {found:?}");
    }
    assert_eq!(found.len(), 4);
}

#[test]
fn prepared_calls_run_once_and_with_enough_scratch_memory() {
    let raw = Raw::open();
    let stream = raw.make("aclrtCreateStream");
    let data = raw.memory(64);
    let (sizes, strides, storage) = ([2_i64, 2], [2_i64, 1], [4_i64]);
    type Create = unsafe extern "C" fn(
        *const i64,
        u64,
        i32,
        *const i64,
        i64,
        i32,
        *const i64,
        u64,
        Pointer,
    ) -> Pointer;
    type Prepare =
        unsafe extern "C" fn(Pointer, Pointer, Pointer, i8, *mut u64, *mut Pointer) -> i32;
    type Run = unsafe extern "C" fn(Pointer, u64, Pointer, Pointer) -> i32;
    let (mut bytes, mut call) = (0, ptr::null_mut());
    // SAFETY: the functions have these types, and the lists their lengths.
    unsafe {
        let create = raw.get::<Create>("aclCreateTensor");
        let (prepare, run) =
            (raw.get::<Prepare>("aclnnMatmulGetWorkspaceSize"), raw.get::<Run>("aclnnMatmul"));
        let t = create(sizes.as_ptr(), 2, 0, strides.as_ptr(), 0, 2, storage.as_ptr(), 1, data);
        assert_eq!(prepare(t, t, t, 0, &mut bytes, &mut call), 0);
        let scratch = raw.memory(bytes as usize);
        assert_ne!(run(scratch, bytes - 1, call, stream), 0, "too little is refused");
        assert_ne!(run(scratch, bytes, call, stream), 0, "and has used the call up");
        assert_eq!(prepare(t, t, t, 0, &mut bytes, &mut call), 0);
        assert_eq!(run(scratch, bytes, call, stream), 0);
        assert_ne!(run(scratch, bytes, call, stream), 0, "a second time");
        // A tensor that is given back before its operator has run.
        assert_eq!(raw.one("aclDestroyTensor", t), 0);
        assert_ne!(raw.one("aclrtSynchronizeStream", stream), 0);
        // Products in shorter numbers.
        let t = create(sizes.as_ptr(), 2, 0, strides.as_ptr(), 0, 2, storage.as_ptr(), 1, data);
        assert_eq!(prepare(t, t, t, 1, &mut bytes, &mut call), 0);
    }
    let found = raw.end();
    for what in ["second time", "before its operator", "shorter numbers", "prepared call"] {
        assert!(found.iter().any(|f| f.contains(what)), "{what}: {found:?}");
    }
}

#[test]
fn a_thread_has_to_choose_a_chip() {
    let raw = Raw::open();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut made = ptr::null_mut();
            // SAFETY: the function has this type.
            let code = unsafe { raw.get::<Make>("aclrtCreateStream")(&mut made) };
            assert_eq!(code, 107_002);
        });
    });
}

/// An address of the chip is none of the host: whoever touches it ends.
#[test]
fn addresses_of_the_chip_are_not_those_of_the_host() {
    const CHILD: &str = "FERRATA_FAKE_TOUCHES";
    let name = "addresses_of_the_chip_are_not_those_of_the_host";
    if std::env::var_os(CHILD).is_some() {
        let raw = Raw::open();
        let at = raw.memory(4);
        // SAFETY: it is not, and ends this process.
        let touched = unsafe { at.cast::<u8>().read_volatile() };
        println!("survived {touched}");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let child = std::process::Command::new(this).args(["--exact", name]).env(CHILD, "1").output();
    let child = child.unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.code().is_none() && !said.contains("survived"), "{said}");
}
