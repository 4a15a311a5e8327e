//! Times the elementary functions on data that stays in the first-level cache.
//!
//! `cargo run --release -p ferrata-cpu --example math` prints nanoseconds per element for every
//! path that this machine has.

use std::hint::black_box;
use std::time::Instant;

use ferrata_cpu::math::Math;
use ferrata_cpu::{Isa, Kernel, Level};

/// A loop over one function, as a type.
macro_rules! loops {
    ($($name:ident),*) => {
        &[$({
            struct Loop<'a>(&'a [f32], &'a mut [f32]);
            impl Kernel for Loop<'_> {
                type Output = ();
                #[inline(always)]
                fn run<L: Level>(self) {
                    for (y, &x) in self.1.iter_mut().zip(self.0) {
                        *y = Math::$name::<L>(x);
                    }
                }
            }
            (stringify!($name), |isa: Isa, x: &[f32], y: &mut [f32]| isa.run(Loop(x, y)))
        }),*]
    };
}

/// Runs one function over a slice.
type Run = fn(Isa, &[f32], &mut [f32]);

fn main() {
    let functions: &[(&str, Run)] = loops!(
        exp, exp2, expm1, log, log2, log1p, sin, cos, tan, asin, acos, atan, sinh, cosh, tanh,
        asinh, acosh, atanh, sqrt, rsqrt, logistic, erf, erfc, erfinv, lgamma, digamma
    );
    let x: Vec<f32> = (0..2048).map(|i| 0.1 + i as f32 / 2500.0).collect();
    let mut y = vec![0.0; x.len()];
    println!("{:10} {}", "", Isa::available().map(|i| format!("{i:>10}")).collect::<String>());
    for (name, run) in functions {
        print!("{name:10} ");
        for isa in Isa::available() {
            let best = (0..20).map(|_| {
                let start = Instant::now();
                for _ in 0..20 {
                    run(isa, black_box(&x), black_box(&mut y));
                }
                start.elapsed().as_secs_f64()
            });
            let seconds = best.fold(f64::INFINITY, f64::min);
            print!("{:10.3}", seconds / 20.0 / x.len() as f64 * 1e9);
        }
        println!();
    }
}
