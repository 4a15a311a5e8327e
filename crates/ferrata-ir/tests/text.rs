//! The text form: printing, parsing, errors, and inputs that nobody meant.

use ferrata_ir::composite::{Attention, attention};
use ferrata_ir::primitive::{Cond, Save, Scan};
use ferrata_ir::testing::Random;
use ferrata_ir::text::parse;
use ferrata_ir::transform::value_and_grad;
use ferrata_ir::{Builder, DType, Function, Literal, Location, Origin, Type, verify};
use std::sync::Arc;

fn f32s(shape: &[usize]) -> Type {
    Type::new(DType::F32, shape)
}

/// A loop with a branch inside, constants of every kind, origins, two functions of one name.
fn sample() -> Arc<Function> {
    let branch = |scale: f64| {
        let mut b = Builder::new("branch");
        let x = b.parameter(f32s(&[2]));
        let y = b.scale(x, scale);
        Arc::new(b.finish(&[y]).unwrap())
    };
    let mut b = Builder::new("one \"step\"\n");
    let h = b.parameter(f32s(&[2]));
    let x = b.parameter(Type::scalar(DType::I32));
    let location = Some(Location { file: "src/a b.rs".into(), line: 12 });
    b.set_origin(Origin { scope: "layers.0".into(), location });
    let zero = b.full_like(x, 0.0);
    let positive = b.gt(x, zero);
    let cond = Cond { branches: [branch(f64::NAN), branch(-1e-30)] };
    let y = b.emit1(cond, &[positive, h]);
    let value = Literal::float(f32s(&[2]), vec![0.5, f64::NEG_INFINITY]);
    let dense = b.emit1(ferrata_ir::primitive::Dense { value: Arc::new(value) }, &[]);
    let y = b.add(y, dense);
    let y = b.emit1(ferrata_ir::primitive::DebugPrint { label: "y \u{7} é".into() }, &[y]);
    let body = Arc::new(b.finish(&[y, y]).unwrap());
    let mut b = Builder::new("main");
    let (h, x) = (b.parameter(f32s(&[2])), b.parameter(Type::new(DType::I32, [4])));
    let op =
        Scan { body, constants: 0, carries: 1, length: 4, reverse: true, save: Save::Every(3) };
    let out = b.emit(op, &[h, x]);
    let loss = b.sum(out[1], &[0, 1]);
    Arc::new(b.finish(&[loss, out[0]]).unwrap())
}

/// The gradient of a composite with its own derivative.
fn attends() -> Arc<Function> {
    let mut b = Builder::new("attention of itself");
    let x = b.parameter(f32s(&[1, 2, 3, 4]));
    let y = attention(&mut b, x, x, x, None, None, &Attention::default());
    let loss = b.sum(y, &[0, 1, 2, 3]);
    Arc::new(b.finish(&[loss]).unwrap())
}

fn programs() -> Vec<Arc<Function>> {
    let gradient = |f: Arc<Function>| Arc::new(value_and_grad(&f, &[true]).unwrap());
    let f = sample();
    let loss = Arc::new(value_and_grad(&f, &[true, false]).unwrap());
    vec![f, loss, attends(), gradient(attends())]
}

#[test]
fn programs_survive_the_round_trip() {
    for program in programs() {
        verify(&program).unwrap();
        let text = program.to_string();
        let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(again, program, "{text}");
        assert_eq!(again.to_string(), text);
        verify(&again).unwrap();
    }
    assert!(attends().to_string().contains(" derivative(@"));
}

#[test]
fn origins_survive_the_round_trip() {
    let program = parse(&sample().to_string()).unwrap();
    let body = program.nodes()[0].op.functions()[0].clone();
    let origin = &body.nodes()[0].origin;
    assert_eq!(&*origin.scope, "layers.0");
    assert_eq!(origin.location.as_ref().unwrap().line, 12);
}

#[test]
fn numbers_with_gaps_are_closed() {
    let program =
        parse("func @f(%7: f32[]) -> (f32[]) { %9 = neg(%7) : f32[] return %9 }").unwrap();
    assert_eq!(
        program.to_string(),
        "func @f(%0: f32[]) -> (f32[]) {\n  %1 = neg(%0) : f32[]\n  return %1\n}\n"
    );
}

#[test]
fn errors_name_line_and_column() {
    let body = |body: &str| format!("func @f(%0: f32[2]) -> (f32[2]) {{\n{body}\n  return %1\n}}");
    for (text, want) in [
        (String::new(), "the text holds no function"),
        ("func f".into(), "line 1, column 6: `f` where `@` should stand"),
        (body("%1 = neg(%0) : f32[3]"), "line 2, column 6: neg gives (f32[2]), but the text says"),
        (body("%1 = gen(%0) : f32[2]"), "line 2, column 6: there is no primitive `gen`"),
        (body("%1 = neg(%5) : f32[2]"), "line 2, column 10: %5 is not defined"),
        (body("%0 = neg(%0) : f32[2]"), "line 2, column 1: %0 is defined twice"),
        (body("%1 = reduce(%0) {kind = sum} : f32[2]"), "attribute `dims` is missing"),
        (body("%1 = neg(%0) {a = 1} : f32[2]"), "neg has no attribute `a`"),
        (body("%1 = call(%0) {function = @g, recompute = true} : f32[2]"), "@g is not defined"),
        (body("%1 = add(%0) : f32[2]"), "line 2, column 6: add(f32[2]): takes 2 operands, 1 given"),
        (body("%1 = neg(%0) : f33[2]"), "line 2, column 16: unknown dtype `f33`"),
        (body("%1 = neg(%0) : f32[2] scope \"x"), "line 2, column 29: the text that starts here"),
        (body("%1 = neg(%0) ! f32[2]"), "line 2, column 14: unexpected character '!'"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}\n{error}");
    }
}

#[test]
fn damaged_text_is_refused_or_understood_but_never_a_panic() {
    let random = &mut Random::new(1);
    let texts: Vec<Vec<char>> =
        programs().iter().map(|p| p.to_string().chars().collect()).collect();
    let bits =
        ["9", "0", "-", "[", "]", "(", ")", "{", "}", "%", "@", "\"", "\\", ",", "=", " ", "e"];
    let bits =
        [&bits[..], &["99999999999999999999", "4611686018427387904", "i64", "bool"]].concat();
    let mut understood = 0;
    for round in 0..4000 {
        let mut text = texts[round % texts.len()].clone();
        for _ in 0..random.between(1, 3) {
            let at = random.below(text.len());
            match random.below(4) {
                0 => drop(text.remove(at)),
                1 => {
                    let other = random.below(text.len());
                    text.swap(at, other);
                }
                2 => drop(text.splice(at..at, random.pick(&bits).chars())),
                _ => drop(text.splice(at..at + 1, random.pick(&bits).chars())),
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(program) = parse(&text) {
            verify(&program).unwrap();
            assert_eq!(parse(&program.to_string()).unwrap(), program);
            understood += 1;
        }
    }
    assert!(understood > 40, "only {understood} were understood");
}
