//! Every primitive, with random attributes and shapes (sizes 0 and 1 included), against what its
//! rules must agree on. A primitive that has no case fails the test.

use ferrata_ir::primitive::{Dim, Primitive};
use ferrata_ir::testing::{
    Case, Options, Random, case, check_batch, check_gradient, check_second_derivative, evaluate,
    function_of,
};
use ferrata_ir::{Function, Literal, Type, verify};
use std::sync::Arc;

const ROUNDS: u64 = 80;

/// The first only stands between jvp and transposition, the others only in programs of ranks.
const ELSEWHERE: [&str; 6] =
    ["custom_linear", "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "permute"];

/// Runs `check` on random cases of every primitive.
fn each(options: &Options, check: impl Fn(&str, &Case, &Arc<Function>, &[Literal], &mut Random)) {
    for name in Primitive::names() {
        if ELSEWHERE.contains(&name) {
            continue;
        }
        for seed in 0..ROUNDS {
            let random = &mut Random::new(seed);
            let found = (0..20).find_map(|_| case(name, random, options));
            let case = found.unwrap_or_else(|| panic!("`{name}` has no case in testing::case"));
            assert!(case.op.rules().name() == name, "the case of `{name}` is another primitive");
            let args = case.literals(random);
            let f = function_of(&args, |b, x| b.emit(case.op.clone(), x));
            let f = f.unwrap_or_else(|e| panic!("{name} {seed}: {e}"));
            check(&format!("{name}, seed {seed}:\n{f}"), &case, &f, &args, random);
        }
    }
}

#[test]
fn results_have_the_inferred_types() {
    each(&Options::default(), |what, _, f, args, _| {
        verify(f).unwrap_or_else(|e| panic!("{what}{e}"));
        let results = evaluate(f, args).unwrap_or_else(|e| panic!("{what}{e}"));
        let types: Vec<&Type> = results.iter().map(|r| &r.ty).collect();
        assert_eq!(types, f.result_types(), "{what}");
    });
}

#[test]
fn loop_nests_agree_with_types() {
    each(&Options::default(), |what, case, f, _, _| {
        let types: Vec<&Type> = case.operands.iter().map(|(ty, _)| ty).collect();
        let Some(loops) = case.op.rules().loops(&types) else { return };
        loops.check(&types).unwrap_or_else(|e| panic!("{what}{e}"));
        for (i, ty) in f.result_types().into_iter().enumerate() {
            assert_eq!(loops.result_shape(i), ty.shape, "{what}");
        }
        for (dims, ty) in loops.operands.iter().zip(&types) {
            for (dim, &size) in dims.iter().zip(&ty.shape) {
                if let Dim::Affine { factor, stride, offset } = *dim {
                    for i in 0..loops.factors[factor].size as isize {
                        let at = i * stride + offset;
                        assert!(at >= 0 && (at as usize) < size, "{what}");
                    }
                }
            }
        }
        let used = |factor: usize| {
            loops.operands.iter().chain(&loops.results).flatten().any(|dim| match dim {
                Dim::Factor(f) | Dim::Affine { factor: f, .. } => *f == factor,
                Dim::Merged(fs) => fs.contains(&factor),
                Dim::Window { outer, inner, .. } => [*outer, *inner].contains(&factor),
                Dim::One => false,
            })
        };
        assert!((0..loops.factors.len()).all(used), "{what}");
    });
}

#[test]
fn gradients_are_finite_differences() {
    each(&Options::differentiable(), |what, case, f, args, _| {
        if case.op.name() != "stop_gradient" {
            check_gradient(f, args, 1).unwrap_or_else(|e| panic!("{what}{e}"));
        }
    });
}

#[test]
fn second_derivatives_are_finite_differences() {
    each(&Options::differentiable(), |what, case, f, args, _| {
        if case.op.name() != "stop_gradient" {
            check_second_derivative(f, args, 1).unwrap_or_else(|e| panic!("{what}{e}"));
        }
    });
}

#[test]
fn batched_is_a_loop_of_unbatched() {
    each(&Options::default(), |what, _, f, args, random| {
        if args.is_empty() {
            return;
        }
        let mut batched: Vec<bool> = args.iter().map(|_| random.one_in(2)).collect();
        let one = random.below(args.len());
        batched[one] = true;
        for size in [1, 3] {
            check_batch(f, args, &batched, size, 1)
                .unwrap_or_else(|e| panic!("{what}{batched:?}: {e}"));
        }
    });
}
