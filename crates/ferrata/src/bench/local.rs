//! This machine as a cluster whose devices are ranks that share it, measured.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use ferrata_cluster::hardware::{
    Accelerator, Calibration, Cluster, Failures, LOCAL, Network, Software,
};
use ferrata_cluster::{Transport, measured_together, transport};
use ferrata_compiler::{Argument, Buffer, Executable};
use ferrata_ir::{Builder, DType, Error, Function, Result, Type};

use crate::Device;
use crate::device::threads_each;
use crate::train::available_memory;

/// This machine as `ranks` ranks share it, which a launcher starts on it: each has its part of the
/// cores and, while all of them work, of the speed of memory and sockets. Products are measured in
/// `dtype`, and others have no rate.
///
/// # Errors
/// If the CPU or its sockets cannot be used.
pub fn local_cluster(ranks: usize, dtype: DType) -> Result<Cluster> {
    let threads = threads_each(ranks);
    let cores = threads_each(1).min(ranks * threads);
    let share = |all: f64| all / ranks as f64;
    let device = Device::cpu_with_threads(cores)?;
    let limits = device.backend().limits().ok_or("this device is no machine")?;
    let peak = limits.operations(dtype);
    let peak = share(peak.ok_or_else(|| Error::new(format!("products of {dtype} have no rate")))?);
    let accelerator = Accelerator {
        name: device.backend().fingerprint(),
        peak: [(dtype.to_string(), peak)].into(),
        memory: share(available_memory().unwrap_or(1 << 32) as f64),
        bandwidth: share(limits.memory.copy),
        sharing: (ranks * threads) as f64 / cores as f64,
    };
    drop(device);
    let seconds = Seconds::measure(ranks, threads, dtype)?;
    let Transport { latency, bandwidth, reduction } = transport(ranks)?;
    Ok(Cluster {
        name: LOCAL.to_owned(),
        devices: ranks,
        calibration: seconds.calibration(peak, accelerator.bandwidth),
        accelerator,
        network: vec![Network {
            name: "sockets".to_owned(),
            size: None,
            bandwidth,
            latency,
            reduction: Some(reduction),
        }],
        software: Software {
            weight_bytes: 4.0,
            gradient_bytes: 4.0,
            optimizer_bytes: 8.0,
            overlaps_gradients: false,
            ..Software::default()
        },
        failures: Failures::default(),
    })
}

/// Time for each measured kernel.
const BUDGET: Duration = Duration::from_millis(200);

/// Sides of the measured products, and the length of the sums of the narrow one.
const WIDE: usize = 512;
const NARROW: usize = 32;
/// Elements of the arrays of the measured sum: as activations of a layer.
const ELEMENTS: usize = 1 << 20;
/// Products so small that starting them is what takes time, in one program.
const TINY: usize = 8;
const CHAIN: usize = 64;

/// Floats of these bytes are about 0.2, so that sums of a few products stay of that size.
const SOME: u8 = 0x3e;

/// What some kernels take on each rank while all ranks run them.
struct Seconds {
    /// A product of squares.
    wide: f64,
    /// One with short sums.
    narrow: f64,
    /// A sum of two arrays.
    sum: f64,
    /// A kernel with next to no work.
    tiny: f64,
}

impl Seconds {
    fn measure(ranks: usize, threads: usize, dtype: DType) -> Result<Seconds> {
        let devices = (0..ranks).map(|_| Device::cpu_with_threads(threads));
        let devices = devices.collect::<Result<Vec<_>>>()?;
        let each = |program: Function| seconds(&devices, &Arc::new(program));
        Ok(Seconds {
            wide: each(products(dtype, [WIDE, WIDE, WIDE], 1)?)?,
            narrow: each(products(dtype, [WIDE, WIDE, NARROW], 1)?)?,
            sum: each(sum()?)?,
            tiny: each(products(dtype, [TINY; 3], CHAIN)?)? / CHAIN as f64,
        })
    }

    /// The constants by which the costs of kernels are what was measured.
    fn calibration(&self, peak: f64, bandwidth: f64) -> Calibration {
        let work = |k: usize| 2.0 * (WIDE * WIDE * k) as f64;
        // Seconds of an operation: a constant, and what falls with the smallest dimension.
        let [wide, narrow] = [(self.wide, WIDE), (self.narrow, NARROW)]
            .map(|(seconds, k)| (seconds - self.tiny).max(f64::EPSILON) / work(k));
        let slope = (narrow - wide) / (1.0 / NARROW as f64 - 1.0 / WIDE as f64);
        let slope = slope.clamp(0.0, 0.9 * wide * WIDE as f64);
        let fastest = wide - slope / WIDE as f64;
        let moved = 3.0 * 4.0 * ELEMENTS as f64;
        Calibration {
            product: 1.0 / (fastest * peak),
            half: slope / fastest * bandwidth / peak,
            memory: moved / (self.sum - self.tiny).max(f64::EPSILON) / bandwidth,
            link: 1.0,
            launch: self.tiny,
            hidden: 0.0,
        }
    }
}

/// `count` products of `m` by `k` and `k` by `n` values, each of the result of the one before.
fn products(dtype: DType, [m, n, k]: [usize; 3], count: usize) -> Result<Function> {
    let mut b = Builder::new("products");
    let mut x = b.parameter(Type::new(dtype, [m, k]));
    let y = b.parameter(Type::new(dtype, [k, n]));
    for _ in 0..count {
        x = b.dot(x, y, (&[], &[]), (&[1], &[0]));
    }
    b.finish(&[x])
}

fn sum() -> Result<Function> {
    let mut b = Builder::new("sum");
    let [x, y] = [(); 2].map(|()| b.parameter(Type::new(DType::F32, [ELEMENTS])));
    let z = b.add(x, y);
    b.finish(&[z])
}

/// The mean seconds of a program that all devices run at once, again and again.
fn seconds(devices: &[Device], program: &Arc<Function>) -> Result<f64> {
    let ready = devices.iter().map(|device| {
        let types = program.parameter_types();
        let run = device.backend().compile(program, &vec![false; types.len()])?;
        let some = |ty: &Type| device.backend().upload(ty.clone(), &vec![SOME; ty.bytes()]);
        Ok((run, types.into_iter().map(some).collect::<Result<Vec<Buffer>>>()?))
    });
    let ready = ready.collect::<Result<Vec<(Arc<dyn Executable>, Vec<Buffer>)>>>()?;
    let together = Barrier::new(ready.len());
    let timed = |(program, buffers): &(Arc<dyn Executable>, Vec<Buffer>)| {
        let once = || program.run(buffers.iter().cloned().map(Argument::Shared).collect());
        let warm = once();
        together.wait();
        warm?;
        let (start, mut runs) = (Instant::now(), 0);
        while start.elapsed() < BUDGET || runs == 0 {
            once()?;
            runs += 1;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(runs))
    };
    measured_together(&ready, timed)
}
