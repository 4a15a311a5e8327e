//! What every pass makes of small programs, as text. `FERRATA_BLESS=1` writes the files anew;
//! read their diff before it is committed.

use crate::gpt::{f32s, softmax};
use ferrata_compiler::{ReferenceDevice, trace};
use ferrata_ir::primitive::{Reverse, Save, Scan};
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, DType, Function, Type};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

/// Compares the program after each pass that changes it, and the plan, with the file `name`.
#[track_caller]
fn snapshot(name: &str, program: &Arc<Function>, donated: &[bool]) {
    let trace = trace(program, donated, &ReferenceDevice).unwrap();
    let mut text = String::new();
    let mut last = None;
    for (pass, program) in &trace.programs {
        let program = program.to_string();
        let shown = if last.as_ref() == Some(&program) { "unchanged\n" } else { &program };
        write!(text, "== {pass}\n{shown}").unwrap();
        last = Some(program);
    }
    write!(text, "== plan\n{}", trace.plan).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    let file = file.with_extension("txt");
    if std::env::var_os("FERRATA_BLESS").is_some() {
        std::fs::write(&file, text).unwrap();
        return;
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let mut pairs = text.lines().zip(known.lines().chain(std::iter::repeat("")));
    let at = pairs.position(|(now, then)| now != then).unwrap_or(text.lines().count());
    assert!(
        text == known,
        "the passes make something else of `{name}`, from line {} on; if it is better, bless it \
         with FERRATA_BLESS=1:\n{text}",
        at + 1
    );
}

/// Exact rules: double negation, constants, equal work, views of views, what nobody reads.
#[test]
fn simplification() {
    let mut b = Builder::new("f");
    let (x, n) = (b.parameter(f32s(&[2, 3])), b.parameter(Type::new(DType::I64, [3])));
    let minus = b.neg(x);
    let same = b.neg(minus);
    let one = b.scale(same, 1.0);
    let t = b.transpose(one, &[1, 0]);
    let t = b.transpose(t, &[1, 0]);
    let (e, again) = (b.exp(t), b.exp(x));
    let sum = b.add(e, again);
    b.tanh(sum);
    let (two, three) = (b.full_like(n, 2.0), b.full_like(n, 3.0));
    let six = b.mul(two, three);
    let m = b.add(n, six);
    let f = Arc::new(b.finish(&[sum, m]).unwrap());
    snapshot("simplification", &f, &[false; 2]);
}

/// One kernel of two reductions over a row and the work between them.
#[test]
fn fused_softmax() {
    let mut b = Builder::new("f");
    let x = b.parameter(f32s(&[4, 7]));
    let y = softmax(&mut b, x);
    let f = Arc::new(b.finish(&[y]).unwrap());
    snapshot("fused_softmax", &f, &[false]);
}

/// Windows of an operand read in place; a result stored transposed.
#[test]
fn folded_windows() {
    let mut b = Builder::new("f");
    let x = b.parameter(f32s(&[4, 6]));
    let s = b.slice_dim(x, 1, 1, 5);
    let r = b.emit1(Reverse { dims: vec![0] }, &[s]);
    let t = b.transpose(r, &[1, 0]);
    let y = b.exp(t);
    let f = Arc::new(b.finish(&[y]).unwrap());
    snapshot("folded_windows", &f, &[false]);
}

/// A layer called twice and its gradient: functions stay functions, work stands behind products.
#[test]
fn repeated_layer_and_its_gradient() {
    let mut b = Builder::new("layer");
    let (x, w) = (b.parameter(f32s(&[3, 4])), b.parameter(f32s(&[4, 4])));
    let y = b.matmul(x, w);
    let y = b.tanh(y);
    let y = b.add(x, y);
    let layer = Arc::new(b.finish(&[y]).unwrap());
    let mut b = Builder::new("model");
    let x = b.parameter(f32s(&[3, 4]));
    let weights = [(); 2].map(|()| b.parameter(f32s(&[4, 4])));
    let y = weights.iter().fold(x, |x, &w| b.call(&layer, &[x, w])[0]);
    let loss = b.sum(y, &[0, 1]);
    let f = Arc::new(b.finish(&[loss]).unwrap());
    let f = Arc::new(value_and_grad(&f, &[false, true, true]).unwrap());
    snapshot("repeated_layer_and_its_gradient", &f, &[false; 3]);
}

/// A donated input that the result takes over.
#[test]
fn update_in_place() {
    let mut b = Builder::new("f");
    let (p, g) = (b.parameter(f32s(&[5])), b.parameter(f32s(&[5])));
    let step = b.scale(g, 0.1);
    let p = b.sub(p, step);
    let f = Arc::new(b.finish(&[p]).unwrap());
    snapshot("update_in_place", &f, &[true, false]);
}

/// A loop with a constant, a carry and slices.
#[test]
fn scan() {
    let mut b = Builder::new("cell");
    let w = b.parameter(f32s(&[3, 3]));
    let (h, x) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[2, 3])));
    let y = b.matmul(h, w);
    let y = b.add(y, x);
    let y = b.tanh(y);
    let body = Arc::new(b.finish(&[y, y]).unwrap());
    let mut b = Builder::new("f");
    let w = b.parameter(f32s(&[3, 3]));
    let (h, x) = (b.parameter(f32s(&[2, 3])), b.parameter(f32s(&[4, 2, 3])));
    let (constants, carries, length) = (1, 1, 4);
    let scan = Scan { body, constants, carries, length, reverse: false, save: Save::All };
    let r = b.emit(scan, &[w, h, x]);
    let f = Arc::new(b.finish(&r).unwrap());
    snapshot("scan", &f, &[false; 3]);
}
