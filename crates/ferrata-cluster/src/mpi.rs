//! Ranks that MPI connects.
//!
//! Only messages go through MPI; reductions are ours, in the order of the group, so that the bits
//! are those of every other backend. The functions of the C library are called directly: every
//! return code counts here.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferrata_ir::communicator::Report;
use ferrata_ir::{Communicator, Error, Result};
use mpi_sys as mpi;

use crate::processes::control::{PROTOCOL, VERSION};

/// MPI counts in `i32`; longer messages go in pieces of so many bytes.
const PIECE: usize = 1 << 30;
/// The exit code of a job in which a rank panicked, as of a program that panics.
const PANICKED: c_int = 101;
/// What ranks say of their version has so many bytes.
const INTRODUCTION: usize = 64;

/// This process among the ranks of MPI.
struct Mpi {
    rank: usize,
    size: usize,
    /// Held during every call of MPI.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether the run is complete and MPI finalised.
    finalised: bool,
    /// What was posted and may still be read by MPI.
    posted: Vec<Posted>,
}

/// A message on its way, with its bytes.
struct Posted {
    _data: Box<[u8]>,
    begun: Begun,
}

// SAFETY: requests are handles that any thread may use, one at a time.
unsafe impl Send for Posted {}

/// All ranks that `mpirun` or `srun` started, which have to be `ranks`.
///
/// From here on a panic ends the whole job: the other ranks would wait for ever.
///
/// # Errors
/// When MPI cannot be initialised, was before, connects another number of ranks, or connects ranks
/// of different versions.
pub(crate) fn world(ranks: usize) -> Result<Box<dyn Communicator>> {
    let (mut initialised, mut provided, mut rank, mut size) = (0, 0, 0, 0);
    // SAFETY: this may be asked at any time, and writes one integer.
    check(unsafe { mpi::MPI_Initialized(&mut initialised) })?;
    if initialised != 0 {
        return Err(Error::new("MPI connects the ranks of a process only once"));
    }
    // SAFETY: MPI has not been initialised before; it needs no arguments.
    check(unsafe {
        let wanted = mpi::RSMPI_THREAD_SERIALIZED;
        mpi::MPI_Init_thread(ptr::null_mut(), ptr::null_mut(), wanted, &mut provided)
    })?;
    // SAFETY: MPI is initialised; each call writes one integer, or changes the world's error
    // handler to one that lets functions return.
    let serialised = unsafe {
        let world = mpi::RSMPI_COMM_WORLD;
        check(mpi::MPI_Comm_set_errhandler(world, mpi::RSMPI_ERRORS_RETURN))?;
        check(mpi::MPI_Comm_rank(world, &mut rank))?;
        check(mpi::MPI_Comm_size(world, &mut size))?;
        provided >= mpi::RSMPI_THREAD_SERIALIZED
    };
    if !serialised {
        return Err(Error::new(format!("{} cannot be used by threads", library())));
    }
    if size as usize != ranks {
        let library = library();
        return Err(Error::new(format!("there are {ranks} ranks, but {library} connects {size}"))
            .help("start the program with the mpirun of the MPI that it was built with"));
    }
    end_all_on_panic();
    let world = Mpi { rank: rank as usize, size: ranks, state: Mutex::default() };
    world.introduce()?;
    Ok(Box::new(world))
}

/// What MPI calls itself, for errors.
fn library() -> String {
    // SAFETY: a constant of the library.
    let longest = unsafe { mpi::RSMPI_MAX_LIBRARY_VERSION_STRING };
    let mut text = vec![0 as c_char; longest as usize + 1];
    let mut length = 0;
    // SAFETY: the buffer has room for the longest version and its end.
    let text = unsafe {
        mpi::MPI_Get_library_version(text.as_mut_ptr(), &mut length);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    };
    text.split(',').next().unwrap_or_default().trim().to_owned()
}

fn end_all_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        // SAFETY: MPI was initialised before this hook was set; ending the job may happen at any
        // time and from any thread.
        unsafe { mpi::MPI_Abort(mpi::RSMPI_COMM_WORLD, PANICKED) };
    }));
}

/// What a return code of MPI means.
fn check(code: c_int) -> Result<()> {
    match code as u32 {
        mpi::MPI_SUCCESS => Ok(()),
        _ => Err(Error::new(format!("MPI fails: {}", message(code)))),
    }
}

fn message(code: c_int) -> String {
    let mut text = [0 as c_char; mpi::MPI_MAX_ERROR_STRING as usize + 1];
    let mut length = 0;
    // SAFETY: the buffer has room for the longest message and its end.
    unsafe {
        mpi::MPI_Error_string(code, text.as_mut_ptr(), &mut length);
        CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned()
    }
}

/// Messages on their way.
#[derive(Default)]
struct Begun {
    /// The other rank, and how many bytes have to come; none for what is sent.
    transfers: Vec<(usize, Option<usize>)>,
    requests: Vec<mpi::MPI_Request>,
}

impl Begun {
    fn begin(
        &mut self,
        rank: usize,
        expected: Option<usize>,
        start: impl FnOnce(&mut mpi::MPI_Request) -> c_int,
    ) -> Result<()> {
        // SAFETY: a constant of the library.
        let mut request = unsafe { mpi::RSMPI_REQUEST_NULL };
        check(start(&mut request))?;
        self.transfers.push((rank, expected));
        self.requests.push(request);
        Ok(())
    }

    /// Begins to send bytes.
    ///
    /// # Safety
    /// MPI is active, and they stay as they are until the requests are complete.
    unsafe fn send(&mut self, rank: usize, data: &[u8]) -> Result<()> {
        data.chunks(PIECE).try_for_each(|piece| {
            let (data, count) = (piece.as_ptr().cast::<c_void>(), piece.len() as c_int);
            self.begin(rank, None, |request| {
                // SAFETY: passed on; MPI only reads the bytes.
                unsafe {
                    let (kind, world) = (mpi::RSMPI_UINT8_T, mpi::RSMPI_COMM_WORLD);
                    mpi::MPI_Isend(data, count, kind, rank as c_int, 0, world, request)
                }
            })
        })
    }

    /// Whether all have gone; drives them on.
    fn has_gone(&mut self) -> Result<bool> {
        let mut gone = 0;
        // SAFETY: a constant of the library: nobody looks at the statuses.
        check(unsafe {
            let ignored = mpi::RSMPI_STATUSES_IGNORE;
            mpi::MPI_Testall(
                self.requests.len() as c_int,
                self.requests.as_mut_ptr(),
                &mut gone,
                ignored,
            )
        })?;
        Ok(gone != 0)
    }
}

impl Mpi {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a call of MPI.
    fn active(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match state.finalised {
            true => Err(Error::new("the run is complete, and MPI finalised")),
            false => Ok(state),
        }
    }

    /// Finds ranks of another version.
    fn introduce(&self) -> Result<()> {
        let mut own = format!("ferrata {VERSION} with protocol {PROTOCOL}").into_bytes();
        own.resize(INTRODUCTION, 0);
        let group: Vec<usize> = (0..self.size).collect();
        let mut all = vec![0; INTRODUCTION * self.size];
        self.all_gather(&group, &own, &vec![INTRODUCTION; self.size], &mut all)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        match all.chunks(INTRODUCTION).position(|other| other != own) {
            None => Ok(()),
            Some(rank) => Err(Error::new(format!(
                "rank {rank} is {}, rank {} {}",
                text(&all[rank * INTRODUCTION..][..INTRODUCTION]),
                self.rank,
                text(&own)
            ))
            .help("install one version on all hosts")),
        }
    }

    /// Waits until all messages have come and gone.
    fn wait(&self, begun: Begun) -> Result<()> {
        let Begun { transfers, mut requests } = begun;
        // SAFETY: a status is plain data, and is filled below.
        let mut statuses: Vec<mpi::MPI_Status> =
            vec![unsafe { std::mem::zeroed() }; requests.len()];
        // SAFETY: as many statuses as requests.
        let code = unsafe {
            mpi::MPI_Waitall(requests.len() as c_int, requests.as_mut_ptr(), statuses.as_mut_ptr())
        };
        if code as u32 == mpi::MPI_ERR_IN_STATUS {
            let fine = [mpi::MPI_SUCCESS, mpi::MPI_ERR_PENDING];
            let codes = statuses.iter().map(|status| status.MPI_ERROR);
            let mut failed = transfers.iter().zip(codes);
            if let Some(((rank, _), code)) =
                failed.find(|(_, code)| !fine.contains(&(*code as u32)))
            {
                let (here, why) = (self.rank, message(code));
                return Err(Error::new(format!(
                    "MPI fails between ranks {here} and {rank}: {why}"
                ))
                .help("all ranks have to run the same program, and to be alive"));
            }
        }
        check(code)?;
        for ((rank, expected), status) in transfers.iter().zip(&statuses) {
            let Some(expected) = *expected else { continue };
            let mut count = 0;
            // SAFETY: the status is that of a complete message of bytes.
            check(unsafe { mpi::MPI_Get_count(status, mpi::RSMPI_UINT8_T, &mut count) })?;
            if count as usize != expected {
                return Err(Error::new(format!("rank {rank} sent {count} bytes, not {expected}"))
                    .help("all ranks have to run the same program"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {} by MPI", self.rank, self.size)
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    /// MPI is finalised when the run is complete. A process that ends before that is taken for
    /// broken by `mpirun`, which then ends the others too; finalising would wait for them.
    fn report(&self, what: Report<'_>) {
        let mut state = self.lock();
        if what == Report::Done && !state.finalised {
            state.finalised = true;
            // That others are gone, they have said themselves.
            state.posted.drain(..).for_each(|posted| drop(self.wait(posted.begun)));
            // SAFETY: MPI is initialised and not finalised, and no call of it is going on.
            unsafe { mpi::MPI_Finalize() };
        }
    }

    fn post(&self, to: usize, data: &[u8]) -> Result<()> {
        let mut state = self.active()?;
        let mut result = Ok(());
        state.posted.retain_mut(|posted| {
            posted.begun.has_gone().map(|gone| !gone).unwrap_or_else(|error| {
                result = Err(error);
                true
            })
        });
        result?;
        let (data, mut begun) = (Box::<[u8]>::from(data), Begun::default());
        // SAFETY: the bytes are kept with the requests.
        let sent = unsafe { begun.send(to, &data) };
        state.posted.push(Posted { _data: data, begun });
        sent
    }

    fn exchange(&self, group: &[usize], send: &[&[u8]], receive: &mut [&mut [u8]]) -> Result<()> {
        let _active = self.active()?;
        let mut begun = Begun::default();
        let mut result = Ok(());
        for (&rank, (out, into)) in group.iter().zip(send.iter().zip(receive)) {
            if rank == self.rank {
                into.copy_from_slice(out);
                continue;
            }
            for piece in into.chunks_mut(PIECE) {
                let (data, count) = (piece.as_mut_ptr().cast::<c_void>(), piece.len() as c_int);
                result = result.and(begun.begin(rank, Some(piece.len()), |request| {
                    // SAFETY: the bytes are borrowed until this function returns, which waits for
                    // the request; nobody else touches them.
                    unsafe {
                        let (kind, world) = (mpi::RSMPI_UINT8_T, mpi::RSMPI_COMM_WORLD);
                        mpi::MPI_Irecv(data, count, kind, rank as c_int, 0, world, request)
                    }
                }));
            }
            // SAFETY: as above.
            result = result.and(unsafe { begun.send(rank, out) });
        }
        // Also after an error: what has begun may still write.
        result.and(self.wait(begun))
    }
}
