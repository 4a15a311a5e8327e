//! The thread pool that kernels run on, and each worker's scratch memory.
//!
//! A run splits into tasks by the caller's choice, from sizes only, and each task is claimed by
//! whichever thread is free: which thread runs a task must not change what the task computes, so
//! results do not depend on the number of threads.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ferrata_compiler::watch::Busy;

mod scratch;
pub use scratch::Scratch;

/// How often an idle worker looks for work before it sleeps; some tens of microseconds, so that
/// the kernels of one step follow each other without system calls.
const SPINS: usize = 600;

type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Threads that run the tasks of one kernel at a time.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    scratch: Vec<Mutex<Vec<Scratch>>>,
    /// Held while a run is in progress: runs of different threads take turns.
    turn: Mutex<()>,
}

struct Shared {
    job: UnsafeCell<Job>,
    /// Whether `job` may be joined; while it may, or `active` is above 0, `job` is not written.
    open: AtomicBool,
    /// Workers that look at or work on `job`.
    active: AtomicUsize,
    /// The next task that nobody has claimed.
    next: AtomicUsize,
    /// Counts runs, so that a worker notices a new one.
    epoch: AtomicUsize,
    sleepers: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether threads note when they are busy.
    watched: AtomicBool,
    busy: Mutex<Vec<Busy>>,
    stop: AtomicBool,
}

#[derive(Clone, Copy)]
struct Job {
    run: Option<*const Task<'static>>,
    tasks: usize,
}

// SAFETY: `job` is written only by the thread that holds `Pool::turn`, and only while `open` is
// false and `active` is 0; workers read it only between raising `active` with `open` seen true
// and lowering it. What it points to is `Sync` and outlives the run.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

thread_local! {
    /// The pool (by address) whose task this thread is in, and as which worker.
    static CURRENT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads, the one that calls [`Pool::run`] counted; 0 means 1. Where
    /// the system refuses a thread, the pool has fewer.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(Job { run: None, tasks: 0 }),
            open: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            epoch: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
            watched: AtomicBool::new(false),
            busy: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        });
        let mut handles = Vec::new();
        for worker in 1..threads.max(1) {
            let shared = Arc::clone(&shared);
            let builder = std::thread::Builder::new().name(format!("ferrata-cpu-{worker}"));
            match builder.spawn(move || shared.work(worker)) {
                Ok(handle) => handles.push(handle),
                Err(_) => break,
            }
        }
        let scratch = (0..=handles.len()).map(|_| Mutex::new(Vec::new())).collect();
        Pool { shared, handles, scratch, turn: Mutex::new(()) }
    }

    /// As many threads as the processor affinity and resource limits of this process allow.
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    /// The number of threads; workers are numbered below it.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Calls `task(index, worker)` once for every index below `tasks`, on all threads, and returns
    /// when all have returned. The caller's thread takes part as worker 0.
    ///
    /// From inside a task of this pool, the tasks run in order on the same thread.
    ///
    /// # Panics
    /// With the first panic of a task, after which no further task starts.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let (pool, worker) = CURRENT.get();
        if pool == self.address() {
            for index in 0..tasks {
                task(index, worker);
            }
            return;
        }
        if tasks == 0 {
            return;
        }
        let _turn = lock(&self.turn);
        let _inside = Inside::enter(self.address(), 0);
        if tasks == 1 || self.handles.is_empty() {
            self.shared.noted(0, || (0..tasks).for_each(|index| task(index, 0)));
            return;
        }
        self.shared.open(task, tasks);
        self.shared.noted(0, || self.shared.claim(task, tasks, 0));
        self.shared.close();
        if let Some(payload) = lock(&self.shared.panic).take() {
            resume_unwind(payload);
        }
    }

    /// Whether threads note when they are busy from now on.
    pub fn watch(&self, watched: bool) {
        self.shared.watched.store(watched, Ordering::Relaxed);
        lock(&self.shared.busy).clear();
    }

    /// What threads have noted since the last call, while the pool is watched.
    pub fn take_busy(&self) -> Vec<Busy> {
        std::mem::take(&mut *lock(&self.shared.busy))
    }

    /// Lends `worker` a buffer of at least `bytes` bytes, aligned to 64 bytes, with arbitrary
    /// content. Buffers are kept for later calls; nested calls get different ones.
    pub fn with_scratch<R>(
        &self,
        worker: usize,
        bytes: usize,
        f: impl FnOnce(&mut Scratch) -> R,
    ) -> R {
        let mut scratch = lock(&self.scratch[worker]).pop().unwrap_or_default();
        scratch.reserve(bytes);
        let result = f(&mut scratch);
        lock(&self.scratch[worker]).push(scratch);
        result
    }

    /// The worker that this thread is: 0 outside of a task of this pool.
    pub fn worker(&self) -> usize {
        let (pool, worker) = CURRENT.get();
        if pool == self.address() { worker } else { 0 }
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for handle in self.handles.drain(..) {
            // A worker catches the panics of tasks and has no other.
            let _ = handle.join();
        }
    }
}

/// Marks this thread as inside a task of a pool until dropped.
struct Inside((usize, usize));

impl Inside {
    fn enter(pool: usize, worker: usize) -> Inside {
        Inside(CURRENT.replace((pool, worker)))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

impl Shared {
    /// Publishes a job. Only for the thread that holds the turn.
    fn open(&self, task: &Task<'_>, tasks: usize) {
        let task: *const Task<'_> = task;
        // SAFETY: only the lifetime changes; `close` waits until no worker uses the pointer.
        let task: *const Task<'static> = unsafe { std::mem::transmute(task) };
        // SAFETY: this thread holds the turn, and the last `close` left `open` false and no
        // worker active, so nobody else reads or writes the job.
        unsafe { *self.job.get() = Job { run: Some(task), tasks } };
        self.next.store(0, Ordering::SeqCst);
        self.open.store(true, Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Ends the job: nobody can join any more, and whoever has is done.
    fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        let mut spins = 0usize;
        while self.active.load(Ordering::SeqCst) > 0 {
            spins += 1;
            if spins > SPINS {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Runs `work` of a thread, noting when if the pool is watched.
    fn noted(&self, thread: usize, work: impl FnOnce()) {
        let start = self.watched.load(Ordering::Relaxed).then(Instant::now);
        work();
        if let Some(start) = start {
            lock(&self.busy).push(Busy { thread, start, end: Instant::now() });
        }
    }

    /// Runs tasks that nobody has claimed until none is left.
    fn claim(&self, task: &Task<'_>, tasks: usize, worker: usize) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= tasks {
                return;
            }
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(index, worker))) {
                self.next.store(tasks, Ordering::Relaxed);
                lock(&self.panic).get_or_insert(payload);
            }
        }
    }

    /// The life of a worker.
    fn work(&self, worker: usize) {
        let _inside = Inside::enter(self as *const Shared as usize, worker);
        let mut seen = 0;
        loop {
            seen = self.wait(seen);
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            self.active.fetch_add(1, Ordering::SeqCst);
            if self.open.load(Ordering::SeqCst) {
                // SAFETY: `active` was raised before `open` was seen true, so the job stays until
                // `active` is lowered.
                let job = unsafe { *self.job.get() };
                if let Some(run) = job.run {
                    // SAFETY: as above: `run` returns only after `close` has seen this worker go.
                    let task = unsafe { &*run };
                    self.noted(worker, || self.claim(task, job.tasks, worker));
                }
            }
            self.active.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Returns when the count of runs is no longer `seen`: at first by looking, then asleep.
    fn wait(&self, seen: usize) -> usize {
        for _ in 0..SPINS {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                return epoch;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.sleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let epoch = loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                break epoch;
            }
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads() {
        for threads in [0, 1, 2, 5] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for tasks in [0, 1, 2, 3, 100] {
                let hits: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|index, worker| {
                    assert!(worker < pool.threads());
                    hits[index].fetch_add(1, Ordering::SeqCst);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::SeqCst) == 1), "{threads} {tasks}");
            }
        }
    }

    #[test]
    fn many_short_runs_from_many_threads() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        pool.run(4, &|i, _| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 3 * 2000 * 6);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(2);
        let both = std::sync::Barrier::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            pool.run(2, &|_, _| {
                both.wait();
            });
        }
    }

    #[test]
    fn a_run_inside_a_task_is_inline_and_in_order() {
        let pool = Pool::new(2);
        pool.run(4, &|_, worker| {
            let order = Mutex::new(Vec::new());
            pool.run(5, &|index, inner| {
                assert_eq!(inner, worker);
                lock(&order).push(index);
            });
            assert_eq!(*lock(&order), [0, 1, 2, 3, 4]);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, &|index, _| assert!(index != 3, "task three"));
            }));
            let payload = caught.unwrap_err();
            assert!(payload.downcast_ref::<&str>().is_some_and(|m| m.contains("task three")));
            let count = AtomicUsize::new(0);
            pool.run(8, &|_, _| {
                count.fetch_add(1, Ordering::SeqCst);
            });
            assert_eq!(count.load(Ordering::SeqCst), 8);
        }
    }

    #[test]
    fn a_watched_pool_says_when_which_thread_was_busy() {
        let pool = Pool::new(2);
        let both = std::sync::Barrier::new(2);
        let run = || {
            pool.run(2, &|_, _| {
                both.wait();
            })
        };
        run();
        assert!(pool.take_busy().is_empty());
        pool.watch(true);
        let start = Instant::now();
        run();
        pool.run(1, &|_, _| ());
        let end = Instant::now();
        let busy = pool.take_busy();
        let mut threads: Vec<usize> = busy.iter().map(|b| b.thread).collect();
        threads.sort_unstable();
        assert_eq!(threads, [0, 0, 1]);
        assert!(busy.iter().all(|b| start <= b.start && b.start <= b.end && b.end <= end));
        pool.watch(false);
        run();
        assert!(pool.take_busy().is_empty());
    }

    #[test]
    fn scratch_is_aligned_kept_and_distinct_when_nested() {
        let pool = Pool::new(1);
        let first = pool.with_scratch(0, 100, |outer| {
            let outer = outer.as_mut_ptr::<u8>();
            pool.with_scratch(0, 100, |inner| assert_ne!(inner.as_mut_ptr::<u8>(), outer));
            outer as usize
        });
        assert_eq!(first % 64, 0);
        assert_eq!(pool.with_scratch(0, 50, |s| s.as_mut_ptr::<u8>() as usize), first);
    }
}
