//! Fits the six constants of the cost model to published measurements, and predicts each of them
//! with constants fitted to the others.

#[path = "../tests/programs/mod.rs"]
mod programs;
#[path = "../tests/programs/published.rs"]
mod published;

use ferrata_cluster::hardware::Calibration;
use published::Published;

fn main() {
    let published = Published::read();
    let start =
        Calibration { product: 0.85, half: 1.0, memory: 0.8, link: 0.7, launch: 1e-5, hidden: 0.7 };
    let all = published.fit(start, None);
    println!("{all:?}");
    for (i, case) in published.cases.iter().enumerate() {
        let others = published.fit(all, Some(i));
        println!(
            "{:55} {:9.4} s, fitted {:+5.1} %, left out {:+5.1} %",
            case.name,
            case.seconds,
            100.0 * published.error(case, all),
            100.0 * published.error(case, others)
        );
    }
}
