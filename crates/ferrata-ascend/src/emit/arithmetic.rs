//! Scalar operations of the kernel language as operations on tensors.

use super::mlir::{Text, tensor};
use super::register::{Element, Form, Mask, Register, either, shape, spread};
use ferrata_ir::primitive::ScalarOp;
use ferrata_ir::{DType, Error, Result, Scalar};

/// A body under construction: where lines go, and the sizes of its tile.
pub(crate) struct Body<'a> {
    pub text: &'a mut Text,
    pub size: [usize; 2],
}

fn number(x: f64) -> Register {
    Register { form: Form::Constant(Scalar::Float(x)), element: Element::F32 }
}

fn integer(x: i64, element: Element) -> Register {
    Register { form: Form::Constant(Scalar::Int(x)), element }
}

impl Body<'_> {
    /// An operation with operands and result of one type.
    fn plain(&mut self, operation: &str, args: &[&Register]) -> Register {
        let (names, mask, ty) = self.spread(args);
        let operation = format!("{operation} {} : {ty}", names.join(", "));
        Register::tensor(self.text.value(operation), mask, args[0].element)
    }

    /// Operands over the axes along which any of them varies, and their type.
    fn spread(&mut self, args: &[&Register]) -> (Vec<String>, Mask, String) {
        let mask = args.iter().fold([false; 2], |m, r| either(m, r.mask()));
        let ty = tensor(&shape(mask, self.size), args[0].element.name());
        let names = args.iter().map(|r| spread(self.text, r, mask, self.size)).collect();
        (names, mask, ty)
    }

    /// A comparison, by its name in MLIR.
    fn compare(&mut self, predicate: &str, a: &Register, b: &Register) -> Register {
        let operation = if a.element == Element::F32 { "cmpf" } else { "cmpi" };
        let mut result = self.plain(&format!("arith.{operation} {predicate},"), &[a, b]);
        result.element = Element::I1;
        result
    }

    fn select(&mut self, condition: &Register, yes: &Register, no: &Register) -> Register {
        let mask = either(condition.mask(), either(yes.mask(), no.mask()));
        let of = |element: Element| tensor(&shape(mask, self.size), element.name());
        let (truth, ty) = (of(Element::I1), of(yes.element));
        let [condition, a, b] = [condition, yes, no].map(|r| spread(self.text, r, mask, self.size));
        let name =
            self.text.value(format_args!("arith.select {condition}, {a}, {b} : {truth}, {ty}"));
        Register::tensor(name, mask, yes.element)
    }

    fn convert(&mut self, operation: &str, x: &Register, to: Element) -> Register {
        let (names, mask, from) = self.spread(&[x]);
        let ty = tensor(&shape(mask, self.size), to.name());
        let name = self.text.value(format_args!("{operation} {} : {from} to {ty}", names[0]));
        Register::tensor(name, mask, to)
    }

    /// Rounded to a narrower float and back.
    fn round(&mut self, x: &Register, narrow: &str) -> Register {
        let (names, mask, wide) = self.spread(&[x]);
        let ty = tensor(&shape(mask, self.size), narrow);
        let half = self.text.value(format_args!("arith.truncf {} : {wide} to {ty}", names[0]));
        let name = self.text.value(format_args!("arith.extf {half} : {ty} to {wide}"));
        Register::tensor(name, mask, Element::F32)
    }

    /// A register of another dtype.
    ///
    /// # Errors
    /// For dtypes that the device does not compute with.
    pub fn cast(&mut self, x: &Register, from: DType, to: DType) -> Result<Register> {
        let element =
            Element::of(to).ok_or_else(|| Error::new(format!("no kernel casts to {to}")))?;
        if let Form::Constant(c) = x.form {
            let c = ferrata_ir::primitive::elementwise::Cast { dtype: to }.apply(c);
            let c = match c {
                Scalar::Float(c) => Scalar::Float(to.round_float(c)),
                Scalar::Int(c) => Scalar::Int(c),
            };
            return Ok(Register { form: Form::Constant(c), element });
        }
        Ok(match (x.element, element) {
            (Element::F32, Element::F32) => match to {
                DType::F16 if from != DType::F16 => self.round(x, "f16"),
                DType::BF16 if from != DType::BF16 => self.round(x, "bf16"),
                _ => x.clone(),
            },
            (Element::F32, Element::I1) => self.compare("une", x, &number(0.0)),
            (Element::F32, _) => self.convert("arith.fptosi", x, element),
            (Element::I1, Element::F32) => self.convert("arith.uitofp", x, element),
            (Element::I1, Element::I32 | Element::I64) => self.convert("arith.extui", x, element),
            (_, Element::F32) => {
                let wide = self.convert("arith.sitofp", x, element);
                return self.cast(&wide, DType::F32, to);
            }
            (from, Element::I1) => self.compare("ne", x, &integer(0, from)),
            (Element::I32, Element::I64) => self.convert("arith.extsi", x, element),
            (Element::I64, Element::I32) => self.convert("arith.trunci", x, element),
            _ => x.clone(),
        })
    }

    /// A scalar operation.
    ///
    /// # Errors
    /// For operations that have no form that is exact enough.
    pub fn apply(&mut self, op: ScalarOp, args: &[Register]) -> Result<Register> {
        let args = &self.alike(op, args);
        let first = if op == ScalarOp::Select { &args[1] } else { &args[0] };
        let found = match first.element {
            _ if op == ScalarOp::Select => Some(self.select(&args[0], &args[1], &args[2])),
            Element::F32 => self.float(op, args),
            Element::I32 | Element::I64 => self.int(op, args),
            Element::I1 => self.truth(op, args),
        };
        found.ok_or_else(|| {
            let what = first.element.name();
            Error::new(format!("the device has no kernel for {op:?} of {what}"))
        })
    }

    /// Indices are computed in 32 bits; beside an operand of 64, and where they might leave that
    /// range, they are widened.
    fn alike(&mut self, op: ScalarOp, args: &[Register]) -> Vec<Register> {
        let compares = matches!(
            op,
            ScalarOp::Eq | ScalarOp::Ne | ScalarOp::Lt | ScalarOp::Le | ScalarOp::Gt | ScalarOp::Ge
        );
        let values = if op == ScalarOp::Select { &args[1..] } else { args };
        let narrow = |r: &Register| match r.form {
            Form::Constant(c) => i32::try_from(c.as_i64()).is_ok(),
            _ => r.element == Element::I32,
        };
        let some = |e: Element| values.iter().any(|r| r.element == e);
        if !some(Element::I64) || !some(Element::I32) {
            return args.to_vec();
        }
        let to = if compares && values.iter().all(narrow) { Element::I32 } else { Element::I64 };
        let mut alike = args.to_vec();
        for r in alike.iter_mut().filter(|r| matches!(r.element, Element::I32 | Element::I64)) {
            match r.form {
                Form::Constant(_) => r.element = to,
                _ if r.element != to => *r = self.convert("arith.extsi", r, to),
                _ => {}
            }
        }
        alike
    }

    fn float(&mut self, op: ScalarOp, args: &[Register]) -> Option<Register> {
        let x = &args[0];
        let unary = |op: &'static str| Some((op, 1));
        let binary = |op: &'static str| Some((op, 2));
        let direct = match op {
            ScalarOp::Neg => unary("arith.negf"),
            ScalarOp::Abs => unary("math.absf"),
            ScalarOp::Floor => unary("math.floor"),
            ScalarOp::Ceil => unary("math.ceil"),
            ScalarOp::Sqrt => unary("math.sqrt"),
            ScalarOp::Rsqrt => unary("math.rsqrt"),
            ScalarOp::Exp => unary("math.exp"),
            ScalarOp::Log => unary("math.log"),
            ScalarOp::Sin => unary("math.sin"),
            ScalarOp::Cos => unary("math.cos"),
            ScalarOp::Erf => unary("math.erf"),
            ScalarOp::Add => binary("arith.addf"),
            ScalarOp::Sub => binary("arith.subf"),
            ScalarOp::Mul => binary("arith.mulf"),
            ScalarOp::Div => binary("arith.divf"),
            ScalarOp::Max => binary("arith.maximumf"),
            ScalarOp::Min => binary("arith.minimumf"),
            ScalarOp::Pow => binary("math.powf"),
            _ => None,
        };
        if let Some((operation, n)) = direct {
            return Some(self.plain(operation, &args.iter().take(n).collect::<Vec<_>>()));
        }
        let predicate = match op {
            ScalarOp::Eq => Some("oeq"),
            ScalarOp::Ne => Some("une"),
            ScalarOp::Lt => Some("olt"),
            ScalarOp::Le => Some("ole"),
            ScalarOp::Gt => Some("ogt"),
            ScalarOp::Ge => Some("oge"),
            _ => None,
        };
        if let Some(predicate) = predicate {
            return Some(self.compare(predicate, x, &args[1]));
        }
        Some(match op {
            ScalarOp::Sign => self.sign(x),
            ScalarOp::Trunc => self.trunc(x),
            ScalarOp::Round => self.round_even(x),
            ScalarOp::Expm1 => self.expm1(x),
            ScalarOp::Log1p => self.log1p(x),
            ScalarOp::Tanh => self.tanh(x),
            ScalarOp::Logistic => {
                let minus = self.plain("arith.negf", &[x]);
                let e = self.plain("math.exp", &[&minus]);
                let sum = self.plain("arith.addf", &[&e, &number(1.0)]);
                self.plain("arith.divf", &[&number(1.0), &sum])
            }
            ScalarOp::IsFinite => {
                let size = self.plain("math.absf", &[x]);
                self.compare("olt", &size, &number(f64::INFINITY))
            }
            _ => return None,
        })
    }

    fn sign(&mut self, x: &Register) -> Register {
        let zero = number(0.0);
        let positive = self.compare("ogt", x, &zero);
        let negative = self.compare("olt", x, &zero);
        let rest = self.select(&negative, &number(-1.0), x);
        self.select(&positive, &number(1.0), &rest)
    }

    fn trunc(&mut self, x: &Register) -> Register {
        let negative = self.compare("olt", x, &number(0.0));
        let (up, down) = (self.plain("math.ceil", &[x]), self.plain("math.floor", &[x]));
        self.select(&negative, &up, &down)
    }

    /// Halves to even: adding and subtracting 1.5·2²³ leaves no bits behind the point.
    fn round_even(&mut self, x: &Register) -> Register {
        let big = number(12_582_912.0);
        let sum = self.plain("arith.addf", &[x, &big]);
        let rounded = self.plain("arith.subf", &[&sum, &big]);
        let size = self.plain("math.absf", &[x]);
        let small = self.compare("olt", &size, &number(4_194_304.0));
        self.select(&small, &rounded, x)
    }

    /// `(u - 1) x / ln u` with `u = exp x`: the errors of `u` cancel.
    fn expm1(&mut self, x: &Register) -> Register {
        let u = self.plain("math.exp", &[x]);
        let less = self.plain("arith.subf", &[&u, &number(1.0)]);
        let log = self.plain("math.log", &[&u]);
        let product = self.plain("arith.mulf", &[&less, x]);
        let exact = self.plain("arith.divf", &[&product, &log]);
        let size = self.plain("math.absf", &[x]);
        let near = self.compare("olt", &size, &number(1.0));
        let result = self.select(&near, &exact, &less);
        let same = self.compare("oeq", &less, &number(0.0));
        self.select(&same, x, &result)
    }

    /// `ln u · x / (u - 1)` with `u = 1 + x`.
    fn log1p(&mut self, x: &Register) -> Register {
        let u = self.plain("arith.addf", &[x, &number(1.0)]);
        let log = self.plain("math.log", &[&u]);
        let less = self.plain("arith.subf", &[&u, &number(1.0)]);
        let product = self.plain("arith.mulf", &[&log, x]);
        let exact = self.plain("arith.divf", &[&product, &less]);
        let size = self.plain("math.absf", &[x]);
        let near = self.compare("olt", &size, &number(1.0));
        let result = self.select(&near, &exact, &log);
        let same = self.compare("oeq", &less, &number(0.0));
        self.select(&same, x, &result)
    }

    /// By `exp`, and for small operands by a series, since the difference would lose them.
    fn tanh(&mut self, x: &Register) -> Register {
        let size = self.plain("math.absf", &[x]);
        let twice = self.plain("arith.mulf", &[&size, &number(-2.0)]);
        let e = self.plain("math.exp", &[&twice]);
        let above = self.plain("arith.subf", &[&number(1.0), &e]);
        let below = self.plain("arith.addf", &[&number(1.0), &e]);
        let far = self.plain("arith.divf", &[&above, &below]);
        let negative = self.compare("olt", x, &number(0.0));
        let minus = self.plain("arith.negf", &[&far]);
        let far = self.select(&negative, &minus, &far);
        let square = self.plain("arith.mulf", &[x, x]);
        // Taylor's series of tanh, to x¹³.
        let series = [
            21844.0 / 6_081_075.0,
            -1382.0 / 155_925.0,
            62.0 / 2835.0,
            -17.0 / 315.0,
            2.0 / 15.0,
            -1.0 / 3.0,
            1.0,
        ];
        let mut near = number(series[0]);
        for &c in &series[1..] {
            let product = self.plain("arith.mulf", &[&near, &square]);
            near = self.plain("arith.addf", &[&product, &number(c)]);
        }
        let near = self.plain("arith.mulf", &[&near, x]);
        let small = self.compare("olt", &size, &number(0.4));
        self.select(&small, &near, &far)
    }

    fn int(&mut self, op: ScalarOp, args: &[Register]) -> Option<Register> {
        let x = &args[0];
        let zero = integer(0, x.element);
        let operation = match op {
            ScalarOp::Add => "arith.addi",
            ScalarOp::Sub => "arith.subi",
            ScalarOp::Mul => "arith.muli",
            ScalarOp::Max => "arith.maxsi",
            ScalarOp::Min => "arith.minsi",
            ScalarOp::And => "arith.andi",
            ScalarOp::Or => "arith.ori",
            ScalarOp::Xor => "arith.xori",
            ScalarOp::Neg => return Some(self.plain("arith.subi", &[&zero, x])),
            ScalarOp::Abs => {
                let minus = self.plain("arith.subi", &[&zero, x]);
                return Some(self.plain("arith.maxsi", &[x, &minus]));
            }
            _ => {
                let predicate = match op {
                    ScalarOp::Eq => "eq",
                    ScalarOp::Ne => "ne",
                    ScalarOp::Lt => "slt",
                    ScalarOp::Le => "sle",
                    ScalarOp::Gt => "sgt",
                    ScalarOp::Ge => "sge",
                    _ => return None,
                };
                return Some(self.compare(predicate, x, &args[1]));
            }
        };
        Some(self.plain(operation, &[x, &args[1]]))
    }

    fn truth(&mut self, op: ScalarOp, args: &[Register]) -> Option<Register> {
        let yes = integer(1, Element::I1);
        let operation = match op {
            ScalarOp::Not => return Some(self.plain("arith.xori", &[&args[0], &yes])),
            ScalarOp::And | ScalarOp::Mul | ScalarOp::Min => "arith.andi",
            ScalarOp::Or | ScalarOp::Max => "arith.ori",
            ScalarOp::Xor | ScalarOp::Ne => "arith.xori",
            ScalarOp::Eq => {
                let differ = self.plain("arith.xori", &[&args[0], &args[1]]);
                return Some(self.plain("arith.xori", &[&differ, &yes]));
            }
            _ => return None,
        };
        Some(self.plain(operation, &[&args[0], &args[1]]))
    }
}
