//! Where ranks come to their supervisor.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

use super::Event;
use crate::processes::control::{self, Beat};
use crate::processes::stream::{Listener, Stream};

/// Whoever connects has to say who it is within this time.
const HELLO: Duration = Duration::from_secs(10);
/// Folders of sockets are called so, followed by the process that made them.
const FOLDER: &str = "ferrata-launch-";

/// Takes connections until it is dropped.
pub(super) struct Door {
    closed: Arc<AtomicBool>,
}

impl Door {
    /// Tells about each connection, and each line that comes over it.
    pub fn open(listener: Listener, events: Sender<Event>) -> Door {
        let closed = Arc::new(AtomicBool::new(false));
        let open = closed.clone();
        thread::spawn(move || {
            let mut connection = 0;
            while !open.load(Ordering::Relaxed) {
                let pause = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
                let mut door = [PollFd::new(&listener, PollFlags::IN)];
                if !poll(&mut door, Some(&pause)).is_ok_and(|ready| ready > 0) {
                    continue;
                }
                if let Ok(stream) = listener.accept() {
                    connection += 1;
                    let events = events.clone();
                    thread::spawn(move || attend(connection, stream, &events));
                }
            }
        });
        Door { closed }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Passes on what comes over one connection.
fn attend(connection: u64, stream: Stream, events: &Sender<Event>) {
    let hello = stream
        .set_read_timeout(Some(HELLO))
        .and_then(|()| control::receive::<Value>(&stream))
        .and_then(|hello| stream.set_read_timeout(None).map(|()| hello));
    // Who does not speak our language is no rank.
    let (Ok(Some(hello)), Ok(line)) = (hello, stream.try_clone()) else { return };
    // That nobody listens any more means that the job is over.
    let _ = events.send(Event::Hello { connection, line, hello });
    while let Ok(Some(beat)) = control::receive::<Beat>(&stream) {
        if events.send(Event::Beat { connection, beat }).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Closed { connection });
}

/// A folder for sockets that only this user can reach; it goes when it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub fn new(secret: &str) -> io::Result<Folder> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let path = parent.join(format!("{FOLDER}{}-{}", std::process::id(), &secret[..8]));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The next launch on this machine sweeps what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what launchers that were killed have left.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        let owner = owner.and_then(|rest| rest.split('-').next()?.parse().ok());
        let alive = |pid: Pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH);
        if owner.and_then(Pid::from_raw).is_some_and(|pid| !alive(pid)) {
            // It may belong to another user.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
