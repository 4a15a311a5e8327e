//! Properties of random programs. `FERRATA_PROPERTY_PROGRAMS` says how many.

use ferrata_ir::testing::{
    Difference, Options, Random, check_batch, check_gradient, check_second_derivative, evaluate,
    function_of, property_programs, random_arguments, random_program,
};
use ferrata_ir::text::parse;
use ferrata_ir::transform::{prune, value_and_grad, vmap};
use ferrata_ir::{DType, Error, Function, Literal, Type, verify};
use std::cell::Cell;
use std::sync::Arc;

fn count() -> u64 {
    property_programs(300)
}

fn each(options: &Options, check: impl Fn(&Arc<Function>, &[Literal], u64) -> Result<(), Error>) {
    for seed in 0..count() {
        let program = random_program(seed, options);
        let args = random_arguments(&program, seed);
        check(&program, &args, seed).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{program}"));
    }
}

type Check = fn(&Arc<Function>, &[Literal], u64) -> Result<Difference, Error>;

/// Also sees to it that most of the checks mean something: the derivative is not 0, and finite
/// differences tell it sharply.
fn differentiate(options: &Options, check: Check) {
    let (moving, blurred) = (Cell::new(0), Cell::new(0));
    each(options, |program, args, seed| {
        let found = check(program, args, seed)?;
        moving.set(moving.get() + u64::from(found.value != 0.0));
        blurred.set(blurred.get() + u64::from(found.error > 1e-4));
        Ok(())
    });
    let (moving, blurred) = (moving.get(), blurred.get());
    println!("{} programs: {moving} with a derivative, {blurred} told badly", count());
    assert!(moving * 10 > count() * 6, "only {moving} of {} have a derivative", count());
    assert!(blurred * 50 < count(), "finite differences are blurred in {blurred} programs");
}

#[test]
fn gradients_are_finite_differences() {
    differentiate(&Options::differentiable(), check_gradient);
}

#[test]
fn second_derivatives_are_finite_differences() {
    differentiate(&Options { nodes: 6, ..Options::differentiable() }, check_second_derivative);
}

#[test]
fn batched_is_a_loop_of_unbatched() {
    each(&Options::default(), |program, args, seed| {
        let random = &mut Random::new(seed);
        let batched: Vec<bool> = args.iter().map(|_| random.one_in(2)).collect();
        check_batch(program, args, &batched, 2, seed)
    });
}

#[test]
fn text_and_pruning_keep_programs() {
    each(&Options::default(), |program, args, _| {
        verify(program)?;
        let again = parse(&program.to_string())?;
        assert!(again == *program, "the text is another program");
        let mut pruned = (**program).clone();
        prune(&mut pruned);
        assert!(pruned.nodes().len() <= program.nodes().len());
        let same = evaluate(program, args)? == evaluate(&pruned, args)?;
        assert!(same, "pruning changes results");
        Ok(())
    });
}

/// `Σ weights · results`, a scalar.
fn loss(program: &Arc<Function>, args: &[Literal]) -> Result<Arc<Function>, Error> {
    let random = &mut Random::new(1);
    function_of(args, |b, x| {
        let results = b.call(program, x);
        let mut loss = b.full(Type::scalar(DType::F64), 0.0);
        for y in results {
            let y = b.cast(y, DType::F64);
            let y = b.scale(y, random.float(-1.0, 1.0));
            let dims: Vec<usize> = (0..b.ty(y).rank()).collect();
            let y = b.sum(y, &dims);
            loss = b.add(loss, y);
        }
        vec![loss]
    })
}

#[test]
fn transforms_compose() {
    each(&Options::differentiable(), |program, args, seed| {
        let random = &mut Random::new(seed);
        let batched: Vec<bool> = args.iter().map(|_| random.one_in(2)).collect();
        // Per-example gradients.
        let wrt: Vec<bool> = args.iter().map(|a| a.ty.dtype.is_float()).collect();
        let gradient = Arc::new(value_and_grad(&loss(program, args)?, &wrt)?);
        verify(&gradient)?;
        assert!(parse(&gradient.to_string())? == gradient, "the text is another program");
        check_batch(&gradient, args, &batched, 2, seed)?;
        // The gradient of a batched program.
        let many = vmap(program, &batched, 2)?;
        verify(&many)?;
        let twice = |x: &Literal| {
            let ty = x.ty.with_shape([&[2], &x.ty.shape[..]].concat());
            Literal::build(ty, |i| x.get(i % x.ty.elements()))
        };
        let args: Vec<Literal> = args
            .iter()
            .zip(&batched)
            .map(|(x, &has)| if has { twice(x) } else { x.clone() })
            .collect();
        check_gradient(&many, &args, seed).map(drop)
    });
}
