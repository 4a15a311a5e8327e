//! Affine maps: index arithmetic in the text of a module.

use ferrata_ir::{Error, Result};

/// Expressions over dimensions and symbols, which are numbered through.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    results: Vec<Expression>,
}

#[derive(Clone, Debug)]
enum Expression {
    Number(i64),
    Argument(usize),
    Binary(Operator, Box<Expression>, Box<Expression>),
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    Add,
    Sub,
    Mul,
    Floor,
    Ceil,
    Mod,
}

impl Map {
    /// Reads `(d0)[s0, s1] -> (d0 + s0 * 4, s1)`.
    pub fn parse(text: &str) -> Result<Map> {
        let (names, results) = text.split_once("->").ok_or("`->` is missing")?;
        let names = names.replace(['(', ')', '[', ']'], " ").replace(',', " ");
        let names: Vec<&str> = names.split_whitespace().collect();
        let spaced = results.replace('(', " ( ").replace(')', " ) ").replace(',', " , ");
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let mut reader = Reader { tokens: &tokens[1.min(tokens.len())..], names: &names };
        let mut results = vec![reader.sum()?];
        while reader.take(",") {
            results.push(reader.sum()?);
        }
        Ok(Map { results })
    }

    /// The largest or the smallest result; most maps have one.
    pub fn extreme(&self, args: &[i64], largest: bool) -> i64 {
        let results = self.results.iter().map(|r| r.evaluate(args));
        if largest { results.max() } else { results.min() }.unwrap_or(0)
    }
}

impl Expression {
    fn evaluate(&self, args: &[i64]) -> i64 {
        match self {
            Expression::Number(n) => *n,
            Expression::Argument(i) => args.get(*i).copied().unwrap_or(0),
            Expression::Binary(operator, a, b) => {
                let (a, b) = (a.evaluate(args), b.evaluate(args));
                match operator {
                    Operator::Add => a.wrapping_add(b),
                    Operator::Sub => a.wrapping_sub(b),
                    Operator::Mul => a.wrapping_mul(b),
                    // A divisor of 0 does not pass the compiler.
                    Operator::Floor => a.div_euclid(b.max(1)),
                    Operator::Ceil => -(-a).div_euclid(b.max(1)),
                    Operator::Mod => a.rem_euclid(b.max(1)),
                }
            }
        }
    }
}

struct Reader<'a> {
    tokens: &'a [&'a str],
    names: &'a [&'a str],
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        let is = self.tokens.first() == Some(&token);
        if is {
            self.tokens = &self.tokens[1..];
        }
        is
    }

    fn sum(&mut self) -> Result<Expression> {
        let mut left = self.product()?;
        loop {
            let operator = if self.take("+") {
                Operator::Add
            } else if self.take("-") {
                Operator::Sub
            } else {
                return Ok(left);
            };
            left = Expression::Binary(operator, left.into(), self.product()?.into());
        }
    }

    fn product(&mut self) -> Result<Expression> {
        let mut left = self.term()?;
        loop {
            let operator = if self.take("*") {
                Operator::Mul
            } else if self.take("floordiv") {
                Operator::Floor
            } else if self.take("ceildiv") {
                Operator::Ceil
            } else if self.take("mod") {
                Operator::Mod
            } else {
                return Ok(left);
            };
            left = Expression::Binary(operator, left.into(), self.term()?.into());
        }
    }

    fn term(&mut self) -> Result<Expression> {
        if self.take("(") {
            let inner = self.sum()?;
            return if self.take(")") { Ok(inner) } else { Err("`)` is missing".into()) };
        }
        let (token, rest) = self.tokens.split_first().ok_or("an expression ends too early")?;
        self.tokens = rest;
        let (negative, name) = token.strip_prefix('-').map_or((false, *token), |t| (true, t));
        let value = match self.names.iter().position(|n| *n == name) {
            Some(i) => Expression::Argument(i),
            None => Expression::Number(
                name.parse().map_err(|_| Error::new(format!("`{name}` is no number")))?,
            ),
        };
        if !negative {
            return Ok(value);
        }
        Ok(Expression::Binary(Operator::Sub, Expression::Number(0).into(), value.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::Map;

    #[test]
    fn maps_are_evaluated() {
        let map = Map::parse("()[s0, s1] -> (s0 * -64 + 100, (s1 + 15) floordiv 16)").unwrap();
        assert_eq!(map.extreme(&[0, 1000], false), 63);
        assert_eq!(map.extreme(&[1, 1000], false), 36);
        assert_eq!(map.extreme(&[1, 1000], true), 63);
        let map = Map::parse("(d0)[s0] -> (-d0 + s0 mod 7)").unwrap();
        assert_eq!(map.extreme(&[3, 15], false), -2);
    }
}
