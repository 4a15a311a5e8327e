//! Compares our all-reduce with `MPI_Allreduce`, in turns, in one job:
//!
//!     cargo build --release -p ferrata-cluster --features mpi --example all_reduce
//!     mpirun -n 2 target/release/examples/all_reduce
#![allow(unsafe_code)]

use std::time::Instant;

use ferrata_ir::communicator::Report;
use ferrata_ir::primitive::ReduceKind;
use ferrata_ir::{Communicator, DType, Error, Result};
use mpi_sys as mpi;

const ROUNDS: usize = 11;

fn main() -> Result<()> {
    let alone = || Error::new("this is one process alone").help("start it with mpirun -n 2");
    let ranks = ferrata_cluster::communicator_from_environment()?.ok_or_else(alone)?;
    let group: Vec<usize> = (0..ranks.size()).collect();
    if ranks.rank() == 0 {
        println!("{} ranks, medians of {ROUNDS}", ranks.size());
    }
    for bytes in [64 << 10, 1 << 20, 64 << 20] {
        let mut times = [Vec::new(), Vec::new(), Vec::new()];
        let mut ours = vec![0; bytes];
        let mut half = vec![0; bytes];
        let mut theirs = vec![0.0f32; bytes / 4];
        let mut sums = theirs.clone();
        // The first round does not count.
        for round in 0..=ROUNDS {
            fill(&*ranks, &mut ours, &mut theirs);
            let mut measure = |which: usize, work: &mut dyn FnMut() -> Result<()>| {
                barrier(&*ranks, &group)?;
                let start = Instant::now();
                work()?;
                if round > 0 {
                    times[which].push(start.elapsed().as_secs_f64());
                }
                Ok::<_, Error>(())
            };
            measure(0, &mut || ranks.all_reduce(&group, ReduceKind::Sum, DType::F32, &mut ours))?;
            measure(1, &mut || {
                mpi_all_reduce(&theirs, &mut sums);
                Ok(())
            })?;
            measure(2, &mut || ranks.all_reduce(&group, ReduceKind::Sum, DType::BF16, &mut half))?;
            let ours =
                ours.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap_or_default()));
            assert!(ours.eq(sums.iter().copied()), "the sums differ");
        }
        let [f32s, mpi, bf16s] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            1e3 * times[times.len() / 2]
        });
        if ranks.rank() == 0 {
            println!(
                "{:6} KiB: ours {f32s:.3} ms in f32, {bf16s:.3} ms in bf16; MPI_Allreduce {mpi:.3} ms; {:.2}",
                bytes >> 10,
                f32s / mpi
            );
        }
    }
    ranks.report(Report::Done);
    Ok(())
}

/// Small whole numbers: their sum does not depend on the order.
fn fill(ranks: &dyn Communicator, ours: &mut [u8], theirs: &mut [f32]) {
    for (i, (ours, theirs)) in ours.chunks_exact_mut(4).zip(theirs).enumerate() {
        *theirs = ((i + ranks.rank()) % 128) as f32;
        ours.copy_from_slice(&theirs.to_le_bytes());
    }
}

fn barrier(ranks: &dyn Communicator, group: &[usize]) -> Result<()> {
    ranks.all_reduce(group, ReduceKind::Sum, DType::U8, &mut vec![0; group.len()])
}

fn mpi_all_reduce(data: &[f32], sums: &mut [f32]) {
    // SAFETY: MPI is initialised by the communicator; both buffers have the same length.
    let code = unsafe {
        mpi::MPI_Allreduce(
            data.as_ptr().cast(),
            sums.as_mut_ptr().cast(),
            data.len() as i32,
            mpi::RSMPI_FLOAT,
            mpi::RSMPI_SUM,
            mpi::RSMPI_COMM_WORLD,
        )
    };
    assert_eq!(code as u32, mpi::MPI_SUCCESS);
}
