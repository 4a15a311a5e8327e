//! The number of threads changes no bit.

use crate::reduce::softmax;
use crate::support::{bits, device, f32s, paths, program, run, small};
use ferrata_ir::testing::Random;

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let types = [f32s(&[700, 300]), f32s(&[300, 200]), f32s(&[3, 40_000])];
    let f = program(&types, |b, x| {
        let y = b.matmul(x[0], x[1]);
        let s = softmax(b, y);
        let total = b.sum(s, &[0]);
        let all = b.sum(y, &[0, 1]);
        let long = softmax(b, x[2]);
        let column = b.sum(x[2], &[1]);
        vec![s, total, all, long, column]
    });
    let random = &mut Random::new(1);
    let args = types.clone().map(|t| small(random, &t));
    for &isa in paths() {
        let run = |threads| bits(&run(&device(isa, threads), &f, &args, &[false; 3]).unwrap());
        let one = run(1);
        for threads in [2, 3, 5] {
            assert!(run(threads) == one, "{threads} threads on {isa}");
        }
    }
}
